package mqttbus

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/carillon-go/carillon/provider/providertest"
)

// A server is a mosquitto of a test, in a folder and on a port of its own.
type server struct {
	tb      testing.TB
	program string
	address string
	folder  string

	mu      sync.Mutex
	process *os.Process   // nil while it is down
	ended   chan struct{} // closed when process has ended
}

// startServer starts a mosquitto that the test ends. lines are settings beside the listener; those of a listener belong to it.
func startServer(tb testing.TB, lines ...string) *server {
	tb.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		if program = "/usr/sbin/mosquitto"; !exists(program) {
			const missing = "no mosquitto; install the Debian package mosquitto"
			if os.Getenv("CARILLON_NO_SKIP") != "" {
				tb.Fatal(missing)
			}
			tb.Skip(missing)
		}
	}
	s := &server{tb: tb, program: program, address: providertest.NewAddress(tb), folder: tb.TempDir()}
	s.configure(lines...)
	s.start()
	tb.Cleanup(s.kill)
	return s
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// configure writes the settings. A server that runs takes some of them after reload.
func (s *server) configure(lines ...string) {
	host, port, _ := net.SplitHostPort(s.address)
	user := "root" // whom it leaves alone; else it wants to become somebody who may not read the folder
	all := append([]string{"user " + user, "log_dest stdout", "persistence_location " + s.folder + "/", "listener " + port + " " + host}, lines...)
	text := strings.Join(all, "\n") + "\n"
	if !strings.Contains(text, "password_file") {
		text += "allow_anonymous true\n"
	}
	s.write("mosquitto.conf", text)
}

// write writes a file in the server's folder and returns its path.
func (s *server) write(name, text string) string {
	s.tb.Helper()
	file := filepath.Join(s.folder, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.tb.Fatal(err)
	}
	return file
}

// url names the server.
func (s *server) url() string { return "mqtt://" + s.address }

// start starts the process and returns when it answers.
func (s *server) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	log, err := os.OpenFile(filepath.Join(s.folder, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(s.program, "-c", filepath.Join(s.folder, "mosquitto.conf"))
	cmd.Stdout, cmd.Stderr = log, log
	dieWithUs(cmd)
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the process dies with the thread that started it
		defer close(ended)
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		cmd.Wait()
	}()
	if err := <-started; err != nil {
		s.tb.Fatal(err)
	}
	s.process, s.ended = cmd.Process, ended
	if !eventually(func() bool {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			c.Close()
		}
		return err == nil
	}) {
		s.tb.Fatalf("mosquitto does not answer at %s: %s", s.address, s.said())
	}
}

// said returns the log.
func (s *server) said() string {
	b, _ := os.ReadFile(filepath.Join(s.folder, "log"))
	return string(b)
}

// end sends a signal that ends the process, and returns when it has.
func (s *server) end(signal os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		s.process.Signal(signal)
		<-s.ended
		s.process = nil
	}
}

// kill ends the process without a warning.
func (s *server) kill() { s.end(syscall.SIGKILL) }

// restart has the process end as its operator would, which saves the sessions if it is told to, and starts it again.
func (s *server) restart() {
	s.end(syscall.SIGTERM)
	s.start()
}

// reload makes the process read its files again.
func (s *server) reload() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process.Signal(syscall.SIGHUP)
}

// users returns the settings for users with one password, each with lines of an ACL, which setUsers can replace.
func (s *server) setUsers(password string, acl map[string][]string) {
	var names, rights strings.Builder
	for user, lines := range acl {
		fmt.Fprintf(&names, "%s:%s\n", user, password)
		fmt.Fprintf(&rights, "user %s\n%s\n\n", user, strings.Join(lines, "\n"))
	}
	passwords := s.write("passwords", names.String())
	if out, err := exec.Command("mosquitto_passwd", "-U", passwords).CombinedOutput(); err != nil {
		s.tb.Fatalf("mosquitto_passwd: %v: %s", err, out)
	}
	s.write("acl", rights.String())
}
