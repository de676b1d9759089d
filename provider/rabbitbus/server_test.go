package rabbitbus

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/carillon-go/carillon/provider/providertest"
)

// A broker is a rabbitmq-server of the tests, in a folder and on ports of its own, with a port mapper of its own. It takes seconds to
// start, so all tests of the package share one, each with names of its own.
type broker struct {
	address string // of AMQP
	folder  string
	program string
	env     []string
	mapper  *exec.Cmd

	mu  sync.Mutex
	cmd *exec.Cmd // nil while it is down
}

// shared is the one, started by the first test that wants it and ended by TestMain.
var shared struct {
	once   sync.Once
	broker *broker
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.broker != nil {
		shared.broker.end()
	}
	os.Exit(code)
}

// theBroker returns the server, which runs.
func theBroker(tb testing.TB) *broker {
	tb.Helper()
	shared.once.Do(func() { shared.broker, shared.err = newBroker() })
	if errors.Is(shared.err, errMissing) && os.Getenv("CARILLON_NO_SKIP") == "" {
		tb.Skip(shared.err)
	}
	if shared.err != nil {
		tb.Fatal(shared.err)
	}
	return shared.broker
}

var errMissing = errors.New("install the Debian package rabbitmq-server")

func newBroker() (b *broker, err error) {
	// Not the programs in /usr/sbin, which change the user by themselves.
	found, _ := filepath.Glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
	mapper, err := exec.LookPath("epmd")
	if len(found) == 0 || err != nil {
		return nil, fmt.Errorf("rabbitmq-server or epmd is missing: %w", errMissing)
	}
	b = &broker{program: found[len(found)-1]}
	defer func() {
		if err != nil {
			b.end()
		}
	}()
	if b.folder, err = os.MkdirTemp("", "rabbitbus"); err != nil {
		return b, err
	}
	if uid, gid, ok := otherUser(); ok {
		if err := os.Chown(b.folder, uid, gid); err != nil {
			return b, err
		}
	}
	var ports [3]string // of AMQP, of nodes among themselves, of the port mapper
	for i := range ports {
		port, _, err := providertest.ReservePort(0) // for as long as this program runs
		if err != nil {
			return b, err
		}
		ports[i] = strconv.Itoa(port)
	}
	b.address = net.JoinHostPort("127.0.0.1", ports[0])
	none := filepath.Join(b.folder, "none")
	b.env = append(os.Environ(),
		"HOME="+b.folder, // for the Erlang cookie
		"RABBITMQ_NODENAME=test-"+ports[0]+"@localhost",
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT="+ports[0], "RABBITMQ_DIST_PORT="+ports[1],
		"ERL_EPMD_ADDRESS=127.0.0.1", "ERL_EPMD_PORT="+ports[2],
		"RABBITMQ_CONF_ENV_FILE="+none, "RABBITMQ_CONFIG_FILE="+none, "RABBITMQ_ADVANCED_CONFIG_FILE="+none, // what is in /etc is not for this one
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(b.folder, "plugins"),
		"RABBITMQ_MNESIA_BASE="+filepath.Join(b.folder, "mnesia"), "RABBITMQ_LOG_BASE="+filepath.Join(b.folder, "log"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} -noinput +sbwt none",
		"RABBITMQ_ALLOW_INPUT=1", // the script then becomes the server instead of waiting for it
	)
	return b, b.startAll(mapper, ports[2])
}

func (b *broker) startAll(mapper, port string) error {
	b.mapper = b.command(mapper, "-address", "127.0.0.1", "-port", port)
	if err := begin(b.mapper); err != nil {
		return err
	}
	if !eventually(func() bool {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			c.Close()
		}
		return err == nil
	}) {
		return errors.New("epmd does not answer")
	}
	return b.start()
}

// otherUser returns who runs the server when that is not the user of this process: as root it refuses to run.
func otherUser() (uid, gid int, ok bool) {
	if os.Getuid() != 0 {
		return 0, 0, false
	}
	u, err := user.Lookup("rabbitmq")
	if err != nil {
		return 0, 0, false
	}
	uid, _ = strconv.Atoi(u.Uid)
	gid, _ = strconv.Atoi(u.Gid)
	return uid, gid, true
}

// command is what runs a program with the server's user and environment. It does not outlive this process.
func (b *broker) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = b.folder, b.env
	cmd.SysProcAttr = dyingWithUs()
	if uid, gid, ok := otherUser(); ok {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return cmd
}

// start starts the server at its address and returns when it is up.
func (b *broker) start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	log, err := os.Create(filepath.Join(b.folder, "printed"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := b.command(b.program)
	cmd.Stdout, cmd.Stderr = log, log
	if err := begin(cmd); err != nil {
		return err
	}
	b.cmd = cmd
	var printed []byte
	if !eventually(func() bool {
		printed, _ = os.ReadFile(log.Name())
		return bytes.Contains(printed, []byte("Starting broker... completed")) // it listens before
	}) {
		return fmt.Errorf("rabbitmq-server does not start: %s", printed)
	}
	return nil
}

// kill ends the server as a crash does.
func (b *broker) kill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cmd != nil {
		b.cmd.Process.Kill()
		b.cmd.Wait()
		b.cmd = nil
	}
}

// startAgain is start for tests that have killed the server.
func (b *broker) startAgain(tb testing.TB) {
	tb.Helper()
	if err := b.start(); err != nil {
		tb.Error(err)
	}
}

// end ends everything.
func (b *broker) end() {
	b.kill()
	if b.mapper != nil && b.mapper.Process != nil {
		b.mapper.Process.Kill()
		b.mapper.Wait()
	}
	os.RemoveAll(b.folder)
}

// control runs rabbitmqctl.
func (b *broker) control(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := b.command(filepath.Join(filepath.Dir(b.program), "rabbitmqctl"), append([]string{"-q"}, args...)...).CombinedOutput()
	if err != nil {
		tb.Fatalf("rabbitmqctl %s: %v: %s", args, err, out)
	}
	return string(out)
}

// url names the server.
func (b *broker) url() string { return "amqp://" + b.address }

// channel returns a channel of a stranger's, who may do everything.
func (b *broker) channel(tb testing.TB) *amqp.Channel {
	tb.Helper()
	c, err := amqp.Dial(b.url())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	ch, err := c.Channel()
	if err != nil {
		tb.Fatal(err)
	}
	return ch
}

// has reports whether there is a queue of this name. To ask for it over AMQP would count as its use.
func (b *broker) has(tb testing.TB, queue string) bool {
	tb.Helper()
	return slices.Contains(strings.Fields(b.control(tb, "list_queues", "name")), queue)
}

// begin starts cmd on a thread that lives as long as this process: the system ends the other when the thread that began it ends.
func begin(cmd *exec.Cmd) error {
	result := make(chan error)
	starter() <- func() { result <- cmd.Start() }
	return <-result
}

var starter = sync.OnceValue(func() chan<- func() {
	tasks := make(chan func())
	go func() {
		runtime.LockOSThread()
		for task := range tasks {
			task()
		}
	}()
	return tasks
})

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

// eventually polls cond until it is true, and returns false when that takes longer than patience.
func eventually(cond func() bool) bool { return providertest.Eventually(patience, cond) }
