package natsbus

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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

// eventually polls cond until it is true, and fails the test when that takes too long.
func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	if !providertest.Eventually(20*time.Second, cond) {
		tb.Fatalf("it does not happen that %s", what)
	}
}
