package pgbus

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/carillon-go/carillon/provider/providertest"
)

// TestMain runs the tests and ends the servers.
func TestMain(m *testing.M) {
	code := m.Run()
	for _, s := range begun.servers {
		s.kill()
	}
	for _, dir := range begun.folders {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// begun is what TestMain has to clean up.
var begun struct {
	servers []*server
	folders []string
}

// A server is a PostgreSQL of these tests, or a PgBouncer, in a folder and on a port of its own.
type server struct {
	port    int
	dir     string
	command func() *exec.Cmd
	stop    syscall.Signal // ends it at once, as a crash does
	ready   func(ctx context.Context) error

	cmd *exec.Cmd // nil while it is down
}

var shared = sync.OnceValues(beginServer)

// startServer returns the PostgreSQL that tests share, which runs. The user postgres is let in without a password, those that newUser makes
// need one.
func startServer(tb testing.TB) *server {
	tb.Helper()
	s, err := shared()
	if err != nil {
		skip(tb, err)
	}
	if s.cmd == nil {
		s.start(tb)
	}
	return s
}

// skip ends a test that cannot run here, as a failure where nothing may be skipped.
func skip(tb testing.TB, err error) {
	tb.Helper()
	if os.Getenv("CARILLON_NO_SKIP") != "" {
		tb.Fatal(err)
	}
	tb.Skip(err)
}

func beginServer() (*server, error) {
	initdb, err := program("postgresql", "/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return nil, err
	}
	dir, attr, err := folder()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	if err := setup(attr, dir, initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return nil, err
	}
	hba := "host all +apps 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"
	if err := os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(hba), 0o644); err != nil {
		return nil, err
	}
	s, err := postgresOn(dir, attr)
	if err != nil {
		return nil, err
	}
	if err := s.run(); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(context.Background(), s.url("postgres"))
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.Background())
	_, err = conn.Exec(context.Background(), "CREATE ROLE apps")
	return s, err
}

// postgresOn is a server on the data in dir.
func postgresOn(dir string, attr *syscall.SysProcAttr, flags ...string) (*server, error) {
	postgres, err := program("postgresql", "/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return nil, err
	}
	port, _, err := providertest.ReservePort(0) // for as long as this program runs
	if err != nil {
		return nil, err
	}
	s := &server{port: port, dir: dir, stop: syscall.SIGQUIT}
	s.command = func() *exec.Cmd {
		return commandAs(attr, dir, postgres, append([]string{"-D", filepath.Join(dir, "data"), "-k", dir, "-p", fmt.Sprint(port),
			"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=16MB"}, flags...)...)
	}
	s.ready = func(ctx context.Context) error {
		c, err := pgx.Connect(ctx, s.url("postgres"))
		if err == nil {
			c.Close(ctx)
		}
		return err
	}
	return s, nil
}

// beginStandby begins a standby of primary, which ends with the test.
func beginStandby(t *testing.T, primary *server) *server {
	t.Helper()
	basebackup, err := program("postgresql", "/usr/lib/postgresql/*/bin/pg_basebackup")
	if err != nil {
		skip(t, err)
	}
	dir, attr, err := folder()
	if err != nil {
		t.Fatal(err)
	}
	if err := setup(attr, dir, basebackup, "-D", filepath.Join(dir, "data"), "-h", "127.0.0.1", "-p", fmt.Sprint(primary.port), "-U", "postgres", "-R", "--no-sync", "-c", "fast"); err != nil {
		t.Fatal(err)
	}
	s, err := postgresOn(dir, attr)
	if err != nil {
		t.Fatal(err)
	}
	s.start(t)
	t.Cleanup(s.kill)
	return s
}

// beginBouncer begins a PgBouncer before s, which ends with the test. Everybody is let in.
func beginBouncer(t *testing.T, s *server, mode string) *server {
	t.Helper()
	pgbouncer, err := program("pgbouncer", "/usr/sbin/pgbouncer")
	if err != nil {
		skip(t, err)
	}
	dir, attr, err := folder()
	if err != nil {
		t.Fatal(err)
	}
	port, _, err := providertest.ReservePort(0) // for as long as this program runs
	if err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf("[databases]\n* = host=127.0.0.1 port=%d user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\nauth_type = any\npool_mode = %s\n",
		s.port, port, mode)
	ini := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(ini, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	b := &server{port: port, dir: dir, stop: syscall.SIGKILL}
	b.command = func() *exec.Cmd { return commandAs(attr, dir, pgbouncer, ini) }
	b.ready = func(ctx context.Context) error {
		c, err := pgx.Connect(ctx, b.url("postgres")+"&default_query_exec_mode=simple_protocol")
		if err == nil {
			c.Close(ctx)
		}
		return err
	}
	b.start(t)
	t.Cleanup(b.kill)
	return b
}

func commandAs(attr *syscall.SysProcAttr, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	a := *attr
	cmd.SysProcAttr = &a
	return cmd
}

// address is host and port.
func (s *server) address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// url leads to the server as a user, "name" or "name:password".
func (s *server) url(as string) string { return urlOf(s.address(), as) }

// urlOf leads to a server, or to one of several, as a user, "name" or "name:password".
func urlOf(addresses, as string) string {
	return "postgres://" + as + "@" + addresses + "/postgres?sslmode=disable"
}

// run starts the process and returns when it answers.
func (s *server) run() error {
	s.cmd = s.command()
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr.Pdeathsig = s.stop // so that no server outlives a test binary that is killed
	began := make(chan error)
	go func() {
		// The signal comes when the thread ends that began the process: this one is held until the
		// program ends.
		runtime.LockOSThread()
		began <- s.cmd.Start()
		holdThread()
	}()
	if err := <-began; err != nil {
		s.cmd = nil
		return err
	}
	begun.servers = append(begun.servers, s)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if !eventually(func() bool { err = s.ready(ctx); return err == nil }) {
		said, _ := os.ReadFile(log.Name())
		s.kill()
		return fmt.Errorf("the server does not answer: %w: %s", err, said)
	}
	return nil
}

// holdThread keeps the thread of its goroutine for good.
func holdThread() { select {} }

// start is run for what must succeed.
func (s *server) start(tb testing.TB) {
	tb.Helper()
	if err := s.run(); err != nil {
		tb.Fatal(err)
	}
}

// kill ends the process without a warning.
func (s *server) kill() {
	if s.cmd != nil {
		s.cmd.Process.Signal(s.stop)
		s.cmd.Wait()
		s.cmd = nil
	}
}

// do runs statements as postgres.
func (s *server) do(tb testing.TB, statements ...string) {
	tb.Helper()
	c := s.connect(tb)
	defer c.Close(context.Background())
	for _, statement := range statements {
		if _, err := c.Exec(context.Background(), statement); err != nil {
			tb.Fatalf("%s: %v", statement, err)
		}
	}
}

// ask returns what a statement answers, as postgres, in its first column and row.
func ask[T any](tb testing.TB, s *server, statement string, args ...any) T {
	tb.Helper()
	c := s.connect(tb)
	defer c.Close(context.Background())
	var v T
	if err := c.QueryRow(context.Background(), statement, args...).Scan(&v); err != nil {
		tb.Fatalf("%s: %v", statement, err)
	}
	return v
}

func (s *server) connect(tb testing.TB) *pgx.Conn {
	tb.Helper()
	c, err := pgx.Connect(context.Background(), s.url("postgres"))
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// newUser makes a user who needs a password, and returns "name:password". He ends with the test.
func (s *server) newUser(t *testing.T, name string) string {
	t.Helper()
	s.do(t, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s' IN ROLE apps", name, secret))
	t.Cleanup(func() { s.do(t, "DROP OWNED BY "+name, "DROP ROLE "+name) })
	return url.UserPassword(name, secret).String()
}

// program returns the first program that a pattern names.
func program(debianPackage, pattern string) (string, error) {
	found, _ := filepath.Glob(pattern)
	if len(found) == 0 {
		return "", fmt.Errorf("no %s: install the Debian package %s", filepath.Base(pattern), debianPackage)
	}
	return found[len(found)-1], nil
}

// folder makes a temporary folder that belongs to the user postgres if this process may give it away, and
// returns what makes a process run as that user: PostgreSQL does not run as root.
func folder() (string, *syscall.SysProcAttr, error) {
	dir, err := os.MkdirTemp("", "carillon-")
	if err != nil {
		return "", nil, err
	}
	begun.folders = append(begun.folders, dir)
	attr := &syscall.SysProcAttr{}
	if os.Getuid() != 0 {
		return dir, attr, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return "", nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return "", nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return "", nil, err
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return dir, attr, os.Chown(dir, int(uid), int(gid))
}

// setup runs a program that prepares a server's folder.
func setup(attr *syscall.SysProcAttr, dir, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = attr
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}
