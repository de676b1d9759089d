//go:build linux

package database

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/carillon-go/carillon/chaos/internal/lab"
)

const (
	startTimeout = 30 * time.Second // of a server, recovery from a crash included
	startTries   = 50               // a killed server's own children may hold its files for a moment
	startPause   = 100 * time.Millisecond
)

// A server is a database server in a lab.
type server struct {
	lab     *lab.Lab
	driver  string
	own     string // DSN for this process
	data    string // folder of what it keeps
	command func() *osexec.Cmd
	atEnd   unix.Signal // when this process ends

	cmd   *osexec.Cmd   // nil: it does not run
	ended chan struct{} // closed when cmd has ended
	words bytes.Buffer  // of cmd; read it after ended
}

// start starts the server and returns when it answers.
func (s *server) start() error {
	for try := 1; ; try++ {
		err := s.tryStart()
		if !errors.Is(err, errEnded) || try == startTries {
			return err
		}
		<-time.After(startPause)
	}
}

func (s *server) tryStart() error {
	s.cmd, s.ended = s.command(), make(chan struct{})
	s.words.Reset()
	s.cmd.Stdout, s.cmd.Stderr = &s.words, &s.words
	if err := s.lab.Start(s.cmd, s.atEnd); err != nil {
		s.cmd = nil
		return fmt.Errorf("database: start a server: %w", err)
	}
	go func(cmd *osexec.Cmd, ended chan struct{}) {
		cmd.Wait()
		close(ended)
	}(s.cmd, s.ended)
	err := answers(s.driver, s.own, startTimeout, s.ended)
	if err == nil {
		return nil
	}
	name := s.cmd.Path
	if kill := s.kill(); kill != nil {
		return kill
	}
	text := strings.TrimSpace(s.words.String())
	return fmt.Errorf("database: start %s: %w: %s", name, err, text[max(0, len(text)-1000):])
}

// kill ends the server with the signal that cannot be caught.
func (s *server) kill() error {
	if s.cmd == nil {
		return nil
	}
	s.cmd.Process.Kill() // it may have ended
	<-s.ended
	s.cmd = nil
	return nil
}

// Backup copies what the server keeps. It must have been killed.
func (d *Database) Backup() error { return d.copyData("", ".backup") }

// RestoreBackup puts back what Backup copied. The server must have been killed.
func (d *Database) RestoreBackup() error { return d.copyData(".backup", "") }

func (d *Database) copyData(from, to string) error {
	if d.server == nil || d.server.cmd != nil {
		return errors.New("database: only the data of a server that was killed can be copied")
	}
	from, to = d.server.data+from, d.server.data+to
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if out, err := osexec.Command("cp", "-a", from, to).CombinedOutput(); err != nil { // owners and modes too
		return fmt.Errorf("database: copy %s: %w: %s", from, err, out)
	}
	return nil
}

// program returns the first program that one of patterns names.
func program(debianPackage string, patterns ...string) (string, error) {
	for _, p := range patterns {
		if found, _ := filepath.Glob(p); len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	return "", fmt.Errorf("database: no %s; install the package %s", filepath.Base(patterns[0]), debianPackage)
}

// folder makes a folder that belongs to a user who may run a server, and returns what
// makes a process run as that user.
func folder(l *lab.Lab, name string) (string, *syscall.SysProcAttr, error) {
	dir := filepath.Join(l.Folder, name)
	if err := os.Mkdir(dir, 0o711); err != nil {
		return "", nil, err
	}
	u, err := user.Lookup(name)
	if err != nil {
		return "", nil, fmt.Errorf("database: %w; the package of the server makes this user", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return "", nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return "", nil, err
	}
	attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return dir, attr, os.Chown(dir, int(uid), int(gid))
}

// as makes cmd run as the user that attr names, in a folder. Whoever starts it may
// change its copy of attr.
func as(attr *syscall.SysProcAttr, dir string, cmd *osexec.Cmd) *osexec.Cmd {
	own := *attr
	cmd.SysProcAttr, cmd.Dir = &own, dir
	return cmd
}

// prepare runs a program that fills a server's folder.
func prepare(attr *syscall.SysProcAttr, dir, name string, args ...string) error {
	if out, err := as(attr, dir, osexec.Command(name, args...)).CombinedOutput(); err != nil {
		return fmt.Errorf("database: %s: %w: %s", name, err, out)
	}
	return nil
}

func openPostgres(l *lab.Lab) (*Database, error) {
	const debianPackage = "postgresql"
	initdb, err := program(debianPackage, "/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return nil, err
	}
	postgres, err := program(debianPackage, "/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return nil, err
	}
	dir, attr, err := folder(l, "postgres")
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	if err := prepare(attr, dir, initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return nil, err
	}
	access := fmt.Sprintf("local all all trust\nhost all all %v/24 trust\n", l.DatabaseAddr())
	if err := os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(access), 0o600); err != nil {
		return nil, err
	}
	s := &server{
		lab: l, driver: "pgx", own: postgresDSN(dir, "postgres"), data: data, atEnd: unix.SIGQUIT,
		command: func() *osexec.Cmd {
			// Without fsync it survives a kill all the same: the kernel lives on.
			cmd := osexec.Command(postgres, "-D", data, "-k", dir, "-c", "listen_addresses="+l.DatabaseAddr().String(),
				"-c", "fsync=off", "-c", "shared_buffers=16MB")
			return as(attr, dir, cmd)
		},
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	if err := exec(s.driver, s.own, "CREATE DATABASE "+name); err != nil {
		return nil, errors.Join(err, s.kill())
	}
	return &Database{Driver: s.driver, DSN: postgresDSN(l.DatabaseAddr().String(), name), own: postgresDSN(dir, name), server: s}, nil
}

func openMariaDB(l *lab.Lab) (*Database, error) {
	const debianPackage = "mariadb-server"
	install, err := program(debianPackage, "/usr/bin/mariadb-install-db")
	if err != nil {
		return nil, err
	}
	mariadbd, err := program(debianPackage, "/usr/sbin/mariadbd")
	if err != nil {
		return nil, err
	}
	dir, attr, err := folder(l, "mysql")
	if err != nil {
		return nil, err
	}
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "socket")
	if err := prepare(attr, dir, install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal",
		"--skip-test-db", "--innodb-log-file-size=8M"); err != nil {
		return nil, err
	}
	s := &server{
		lab: l, driver: "mysql", own: mariaDSN("unix", socket, "root", ""), data: data, atEnd: unix.SIGKILL,
		command: func() *osexec.Cmd {
			cmd := osexec.Command(mariadbd, "--no-defaults", "--datadir="+data, "--bind-address="+l.DatabaseAddr().String(),
				"--skip-networking=0", "--skip-name-resolve", "--socket="+socket, "--pid-file="+filepath.Join(dir, "pid"),
				"--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--max-connections=100")
			return as(attr, dir, cmd)
		},
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	if err := exec(s.driver, s.own, "CREATE DATABASE "+name, "CREATE USER "+name+"@'%'", "GRANT ALL ON "+name+".* TO "+name+"@'%'"); err != nil {
		return nil, errors.Join(err, s.kill())
	}
	return &Database{
		Driver: s.driver, DSN: mariaDSN("tcp", l.DatabaseAddr().String()+":3306", name, name),
		own: mariaDSN("unix", socket, name, name), server: s,
	}, nil
}
