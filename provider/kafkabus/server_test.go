package kafkabus

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/carillon-go/carillon/provider/providertest"
)

// serverEnv makes the test's program a server, as its value says.
const serverEnv = "CARILLON_KAFKABUS_TEST_SERVER"

// serverConfig is what a server in a process of its own is told.
type serverConfig struct {
	Port       int
	Dir        string // where it keeps what it was given, also when it is killed
	Partitions int    // of a topic that does not say
}

func TestMain(m *testing.M) {
	if told := os.Getenv(serverEnv); told != "" {
		if err := serve(told); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve runs a server until its standard input ends, which it does when the test's process dies.
func serve(told string) error {
	var cfg serverConfig
	if err := json.Unmarshal([]byte(told), &cfg); err != nil {
		return err
	}
	c, err := kfake.NewCluster(kfake.Ports(cfg.Port), kfake.DataDir(cfg.Dir), kfake.DefaultNumPartitions(cfg.Partitions))
	if err != nil {
		return err
	}
	defer c.Close()
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// A server is a broker in a process of its own, that can be killed.
type server struct {
	tb      testing.TB
	address string
	told    string

	mu    sync.Mutex
	cmd   *exec.Cmd // nil while it is down
	stdin io.Closer
}

// startServer starts a broker that the test ends.
func startServer(tb testing.TB) *server {
	tb.Helper()
	address := providertest.NewAddress(tb)
	_, port, _ := net.SplitHostPort(address)
	number, _ := strconv.Atoi(port)
	told, err := json.Marshal(serverConfig{Port: number, Dir: tb.TempDir(), Partitions: 3})
	if err != nil {
		tb.Fatal(err)
	}
	s := &server{tb: tb, address: address, told: string(told)}
	s.start()
	tb.Cleanup(s.kill)
	return s
}

// start starts the process and returns when it serves.
func (s *server) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	program, err := os.Executable()
	if err != nil {
		s.tb.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), serverEnv+"="+s.told)
	cmd.Stderr = os.Stderr
	if s.stdin, err = cmd.StdinPipe(); err != nil {
		s.tb.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		s.tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	s.cmd = cmd
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		s.tb.Fatalf("the server at %s said %q: %v", s.address, line, err)
	}
}

// kill ends the process without a warning.
func (s *server) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.stdin.Close()
		s.cmd.Wait()
		s.cmd = nil
	}
}

// restart kills the process and starts it again, at the same address and with what it had.
func (s *server) restart() {
	s.kill()
	s.start()
}

// startCluster starts brokers in this process, whose answers the test can change. They have one partition for each topic unless opts say otherwise.
func startCluster(tb testing.TB, brokers int, opts ...kfake.Opt) *kfake.Cluster {
	tb.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(brokers), kfake.DefaultNumPartitions(1)}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}
