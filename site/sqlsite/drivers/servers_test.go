package drivers

import (
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/carillon-go/carillon/provider/providertest"
)

var (
	postgres = once(beginPostgres)
	mariadb  = once(beginMariaDB)
)

func emptyPostgres(t testing.TB) string { return emptyOn(t, postgres(t)) }
func emptyMariaDB(t testing.TB) string  { return emptyOn(t, mariadb(t)) }

const postgresPackage = "postgresql"

// postgresServer is a server on the data that is in dir.
func postgresServer(dir string, attr *syscall.SysProcAttr, flags ...string) (*server, error) {
	postgres, err := program(postgresPackage, "/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return nil, err
	}
	port, _, err := providertest.ReservePort(0) // for as long as this program runs
	if err != nil {
		return nil, err
	}
	return &server{
		port:    port,
		sockets: dir,
		driver:  "pgx",
		dsn: func(database string) string {
			if database == "" {
				database = "postgres"
			}
			return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", port, database)
		},
		command: func() *exec.Cmd {
			cmd := exec.Command(postgres, append([]string{"-D", filepath.Join(dir, "data"), "-k", dir, "-p", fmt.Sprint(port),
				"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=16MB"}, flags...)...)
			cmd.Dir = dir
			a := *attr
			cmd.SysProcAttr = &a
			return cmd
		},
		stop: syscall.SIGQUIT,
	}, nil
}

func beginPostgres() (*server, error) {
	initdb, err := program(postgresPackage, "/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return nil, err
	}
	dir, attr, err := folder("postgres")
	if err != nil {
		return nil, err
	}
	if err := setup(attr, dir, initdb, "-D", filepath.Join(dir, "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return nil, err
	}
	// Every address of the loopback network, so that a test can come from another one.
	hba := "local all all trust\nhost all all 127.0.0.0/8 trust\nlocal replication all trust\nhost replication all 127.0.0.1/32 trust\n"
	if err := os.WriteFile(filepath.Join(dir, "data", "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		return nil, err
	}
	s, err := postgresServer(dir, attr)
	if err != nil {
		return nil, err
	}
	return s, s.start()
}

// beginStandby begins a replica of primary.
func beginStandby(t testing.TB, primary *server) *server {
	t.Helper()
	basebackup, err := program(postgresPackage, "/usr/lib/postgresql/*/bin/pg_basebackup")
	if err != nil {
		skip(t, err)
	}
	dir, attr, err := folder("postgres")
	if err != nil {
		t.Fatal(err)
	}
	if err := setup(attr, dir, basebackup, "-D", filepath.Join(dir, "data"), "-h", "127.0.0.1", "-p", fmt.Sprint(primary.port), "-U", "postgres", "-R", "--no-sync", "-c", "fast"); err != nil {
		t.Fatal(err)
	}
	s, err := postgresServer(dir, attr, "-c", "hot_standby=on")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	return s
}

func beginMariaDB() (*server, error) {
	const debianPackage = "mariadb-server"
	install, err := program(debianPackage, "/usr/bin/mariadb-install-db")
	if err != nil {
		return nil, err
	}
	mariadbd, err := program(debianPackage, "/usr/sbin/mariadbd")
	if err != nil {
		return nil, err
	}
	dir, attr, err := folder("mysql")
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	if err := setup(attr, dir, install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=8M"); err != nil {
		return nil, err
	}
	port, _, err := providertest.ReservePort(0) // for as long as this program runs
	if err != nil {
		return nil, err
	}
	s := &server{
		port:    port,
		sockets: dir,
		driver:  "mysql",
		dsn:     func(database string) string { return fmt.Sprintf("root@tcp(127.0.0.1:%d)/%s", port, database) },
		command: func() *exec.Cmd {
			cmd := exec.Command(mariadbd, "--no-defaults", "--datadir="+data, fmt.Sprintf("--port=%d", port), "--bind-address=127.0.0.1",
				"--skip-networking=0", "--socket="+filepath.Join(dir, "socket"), "--pid-file="+filepath.Join(dir, "pid"),
				"--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--max-connections=200")
			cmd.Dir = dir
			a := *attr
			cmd.SysProcAttr = &a
			return cmd
		},
		stop: syscall.SIGKILL,
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	if err := run(s, "CREATE DATABASE main"); err != nil {
		s.kill()
		return nil, err
	}
	return s, nil
}

// run executes one statement on s.
func run(s *server, statement string) error {
	pool, err := sql.Open(s.driver, s.dsn(""))
	if err != nil {
		return err
	}
	defer pool.Close()
	_, err = pool.Exec(statement)
	return err
}
