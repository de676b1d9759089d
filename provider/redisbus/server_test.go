package redisbus

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/carillon-go/carillon/provider/providertest"
)

// A server is a redis-server of a test, in a folder and on a port of its own.
type server struct {
	tb      testing.TB
	address string
	args    []string
	log     string

	mu  sync.Mutex
	cmd *exec.Cmd // nil while it is down
}

// startServer starts a redis-server that the test ends. args are its settings beside the port.
func startServer(tb testing.TB, args ...string) *server {
	tb.Helper()
	return startWith(tb, "", append([]string{"--save", "", "--appendonly", "no"}, args...)...)
}

// startWith is startServer with a file of settings, or none.
func startWith(tb testing.TB, conf string, args ...string) *server {
	tb.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("CARILLON_NO_SKIP") != "" {
			tb.Fatalf("%v; install the Debian package redis-server", err)
		}
		tb.Skipf("%v; install the Debian package redis-server", err)
	}
	s := &server{tb: tb, address: providertest.NewAddress(tb), log: filepath.Join(tb.TempDir(), "redis.log")}
	host, port, _ := net.SplitHostPort(s.address)
	s.args = []string{program}
	if conf != "" {
		s.args = append(s.args, conf)
	}
	s.args = append(append(s.args, "--bind", host, "--port", port, "--dir", filepath.Dir(s.log), "--daemonize", "no"), args...)
	s.start()
	tb.Cleanup(s.kill)
	return s
}

// url names the server.
func (s *server) url() string { return "redis://" + s.address }

// start starts the process and returns when it answers.
func (s *server) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(s.args[0], s.args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	s.cmd = cmd
	if !eventually(func() bool { return s.answers() }) {
		said, _ := os.ReadFile(s.log)
		s.tb.Fatalf("redis-server does not answer at %s: %s", s.address, said)
	}
}

// answers reports whether the server takes commands, or says that it wants a password.
func (s *server) answers() bool {
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "PING\r\n")
	b := make([]byte, 64)
	n, _ := c.Read(b)
	return bytes.HasPrefix(b[:n], []byte("+PONG")) || bytes.HasPrefix(b[:n], []byte("-NOAUTH"))
}

// kill ends the process without a warning.
func (s *server) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}

// restart kills the process and starts it again, at the same address.
func (s *server) restart() {
	s.kill()
	s.start()
}

// do is try for what must succeed.
func (s *server) do(args ...string) string {
	s.tb.Helper()
	answer, err := s.try(args...)
	if err != nil {
		s.tb.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return answer
}

// try runs a command as the operator, who may do everything.
func (s *server) try(args ...string) (string, error) {
	c, err := s.dial()
	if err != nil {
		return "", err
	}
	defer c.Close()
	answer, err := c.Do(s.tb.Context(), c.B().Arbitrary(args...).Build()).ToMessage()
	return answer.String(), err
}

// client returns a client of the operator's.
func (s *server) client() rueidis.Client {
	s.tb.Helper()
	c, err := s.dial()
	if err != nil {
		s.tb.Fatal(err)
	}
	return c
}

func (s *server) dial() (rueidis.Client, error) {
	return rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.address}, ForceSingleClient: true, DisableCache: true, PipelineMultiplex: -1, Password: s.password(),
	})
}

// password returns what --requirepass says.
func (s *server) password() string {
	for i, a := range s.args {
		if a == "--requirepass" {
			return s.args[i+1]
		}
	}
	return ""
}
