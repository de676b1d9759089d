package natsbus

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/carillon-go/carillon/provider/providertest"
)

// asServer makes the test program a NATS server; its value is a configuration file.
const asServer = "CARILLON_TEST_NATS_SERVER"

func TestMain(m *testing.M) {
	if file := os.Getenv(asServer); file != "" {
		fmt.Fprintln(os.Stderr, runServer(file))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func runServer(file string) error {
	options, err := server.ProcessConfigFile(file)
	if err != nil {
		return err
	}
	s, err := server.NewServer(options)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	s.Start()
	// The one who started us holds the other end: a server does not outlive its test.
	io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
	return nil
}

// A testServer is a NATS server in a process of its own, which ends with the test.
type testServer struct {
	tb      testing.TB
	file    string // its configuration
	address string
	cmd     *exec.Cmd
	stdin   io.Closer
}

// startServer starts a server with a configuration beside that of its address.
func startServer(tb testing.TB, configuration string) *testServer {
	tb.Helper()
	s := &testServer{tb: tb, file: filepath.Join(tb.TempDir(), "nats.conf"), address: providertest.NewAddress(tb)}
	s.configure(configuration)
	s.start()
	tb.Cleanup(s.kill)
	return s
}

func (s *testServer) url() string { return "nats://" + s.address }

// configure writes the configuration, for the next start or reload.
func (s *testServer) configure(configuration string) {
	s.tb.Helper()
	text := fmt.Sprintf("listen: %q\nlogfile: %q\n%s\n", s.address, s.file+".log", configuration)
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *testServer) start() {
	s.tb.Helper()
	self, err := os.Executable()
	if err != nil {
		s.tb.Fatal(err)
	}
	s.cmd = exec.Command(self)
	s.cmd.Env = append(os.Environ(), asServer+"="+s.file)
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		s.tb.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	eventually(s.tb, "the server accepts connections", func() bool {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// kill ends the process as a crash does. Twice is fine.
func (s *testServer) kill() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Kill()
	s.cmd.Wait()
	s.stdin.Close()
	s.cmd = nil
}

// hangUp has the process read its configuration again.
func (s *testServer) hangUp() { s.cmd.Process.Signal(syscall.SIGHUP) }

// log returns what the server has written.
func (s *testServer) log() string {
	b, _ := os.ReadFile(s.file + ".log")
	return string(b)
}

// restart kills the server and starts it again at the same address.
func (s *testServer) restart() {
	s.kill()
	s.start()
}

// stranger returns a connection that is none of ours.
func (s *testServer) stranger(tb testing.TB, options ...nats.Option) *nats.Conn {
	tb.Helper()
	conn, err := nats.Connect(s.url(), append(options, nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(conn.Close)
	return conn
}

// eventually polls cond until it is true, and fails the test if that takes too long.
func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("it does not happen that %s", what)
		}
	}
}

// A relay carries connections to an address, and can be cut.
type relay struct {
	listener net.Listener
	to       string

	mu    sync.Mutex // guards the fields below
	cut   bool
	conns []net.Conn
	hold  chan struct{} // what the server says waits until it is closed; nil: nothing waits
}

func startRelay(tb testing.TB, to string) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &relay{listener: l, to: to}
	go r.accept()
	tb.Cleanup(func() { l.Close(); r.set(true) })
	return r
}

// ofRelay reports whether a goroutine is a relay's.
func ofRelay(stack string) bool { return strings.Contains(stack, "natsbus.(*relay)") }

func (r *relay) url() string { return "nats://" + r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		go r.carry(in)
	}
}

func (r *relay) carry(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer out.Close()
	r.mu.Lock()
	if r.cut {
		r.mu.Unlock()
		return
	}
	r.conns = append(r.conns, in, out)
	r.mu.Unlock()
	go r.copy(out, in)
	r.copy(held{in, r}, out)
}

func (r *relay) copy(to io.WriteCloser, from net.Conn) {
	io.Copy(to, from)
	to.Close()
	from.Close()
}

// held is a connection on which nothing is written while its relay holds.
type held struct {
	io.WriteCloser
	relay *relay
}

func (h held) Write(b []byte) (int, error) {
	h.relay.mu.Lock()
	hold := h.relay.hold
	h.relay.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return h.WriteCloser.Write(b)
}

// say writes to everybody who is connected, as the server would.
func (r *relay) say(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := 0; i < len(r.conns); i += 2 {
		io.WriteString(r.conns[i], text)
	}
}

// stall makes what the server says wait until resume is called.
func (r *relay) stall() (resume func()) {
	hold := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = hold
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.hold = nil
		close(hold)
	})
}

// set cuts the relay, in the middle of whatever is on its way, or mends it.
func (r *relay) set(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}
