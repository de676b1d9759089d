package drivers

import (
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "modernc.org/sqlite"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// TestMain runs the tests, or one of the processes that they start, and ends
// the servers.
func TestMain(m *testing.M) {
	mysql.SetLogger(&mysql.NopLogger{}) // it would write of every connection that a test breaks
	if job := os.Getenv(childJob); job != "" {
		os.Exit(runChild(job))
	}
	code := m.Run()
	for _, s := range servers.started {
		s.kill()
	}
	for _, dir := range servers.folders {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// An engine is a kind of database to test against.
type engine struct {
	name   string
	driver string
	// empty returns the DSN of a database without tables.
	empty func(t testing.TB) string
	// shared returns the DSN of a database in which every test uses tables of its own.
	shared func(t testing.TB) string
	// settings is added to a DSN of shared for those who are tested, not for the test itself.
	settings string
}

func sqliteFile(t testing.TB) string { return filepath.Join(t.TempDir(), "site.db") }

var engines = []engine{
	{"SQLite", "sqlite", sqliteFile, sqliteFile, ""},
	{"PostgreSQL", "pgx", emptyPostgres, func(t testing.TB) string { return postgres(t).dsn("postgres") }, ""},
	{"MariaDB", "mysql", emptyMariaDB, func(t testing.TB) string { return mariadb(t).dsn("main") }, ""},
}

// onEach runs test once per engine.
func onEach(t *testing.T, test func(t *testing.T, e engine)) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) { test(t, e) })
	}
}

func openPool(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	pool, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	return pool
}

func openSite(t testing.TB, pool *sql.DB, opts ...sqlsite.Option) *sqlsite.Database {
	t.Helper()
	db, err := sqlsite.New(pool, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func mustEnsure(t testing.TB, db site.Database) site.Site {
	t.Helper()
	s, err := db.EnsureSite(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var lastStream atomic.Uint64

func newMember(s site.Site) site.Member {
	return site.Member{Site: s.ID, Stream: site.NewStreamID(1, lastStream.Add(1)), Role: site.RolePublish, Server: "test"}
}

func mustJoin(t testing.TB, db site.Database, s site.Site) site.Member {
	t.Helper()
	m := newMember(s)
	if err := db.Join(t.Context(), m, time.Hour); err != nil {
		t.Fatal(err)
	}
	return m
}

func mustExec(t testing.TB, pool *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := pool.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// A server is a database server that runs as a process of its own.
type server struct {
	port    int
	sockets string // folder of its Unix socket
	dsn     func(database string) string
	driver  string
	command func() *exec.Cmd
	stop    syscall.Signal // ends it at once, as a crash does

	cmd *exec.Cmd
}

// servers are what TestMain has to clean up.
var servers struct {
	started []*server
	folders []string
}

// start runs the server and waits until it answers.
func (s *server) start() error {
	s.cmd = s.command()
	s.cmd.SysProcAttr.Pdeathsig = s.stop // so that no server outlives a test binary that is killed
	began := make(chan error)
	go func() {
		// The signal comes when the thread ends that began the process: this one is held until
		// the program ends.
		runtime.LockOSThread()
		began <- s.cmd.Start()
		select {}
	}()
	if err := <-began; err != nil {
		return err
	}
	pool, err := sql.Open(s.driver, s.dsn(""))
	if err != nil {
		return err
	}
	defer pool.Close()
	if !eventually(30*time.Second, func() bool { err = pool.Ping(); return err == nil }) {
		s.kill()
		return fmt.Errorf("%s does not answer: %w", s.cmd.Path, err)
	}
	return nil
}

// kill ends the server and waits for its process.
func (s *server) kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	s.cmd.Process.Signal(s.stop)
	s.cmd.Wait()
	s.cmd = nil
}

// eventually reports whether true comes from ok within limit. It is for what happens in
// other processes, whose clock is the real one.
func eventually(limit time.Duration, ok func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(limit)
	defer end.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			return false
		}
	}
	return true
}

// skip ends a test that cannot run here, as a failure where nothing may be skipped.
func skip(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("CARILLON_NO_SKIP") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// program returns the first program that one of patterns names.
func program(debianPackage string, patterns ...string) (string, error) {
	for _, p := range patterns {
		if found, _ := filepath.Glob(p); len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	return "", fmt.Errorf("no %s: install the package %s", filepath.Base(patterns[0]), debianPackage)
}

// folder makes a temporary folder that belongs to the named user when this process may
// give it away, and returns what makes a process run as that user.
func folder(name string) (string, *syscall.SysProcAttr, error) {
	dir, err := os.MkdirTemp("", "carillon-")
	if err != nil {
		return "", nil, err
	}
	servers.folders = append(servers.folders, dir)
	attr := &syscall.SysProcAttr{}
	if os.Getuid() != 0 {
		return dir, attr, nil
	}
	u, err := user.Lookup(name)
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
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = attr
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// once returns what begins a server when it is first asked for.
func once(begin func() (*server, error)) func(t testing.TB) *server {
	var mu sync.Mutex
	var s *server
	var failed error
	return func(t testing.TB) *server {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if s == nil && failed == nil {
			if s, failed = begin(); failed == nil {
				servers.started = append(servers.started, s)
			}
		}
		if failed != nil {
			skip(t, failed)
		}
		return s
	}
}

var lastDatabase atomic.Uint64

// emptyOn makes a database on s and returns its DSN.
func emptyOn(t testing.TB, s *server) string {
	t.Helper()
	name := fmt.Sprintf("empty%d", lastDatabase.Add(1))
	pool := openPool(t, s.driver, s.dsn(""))
	mustExec(t, pool, "CREATE DATABASE "+name)
	return s.dsn(name)
}
