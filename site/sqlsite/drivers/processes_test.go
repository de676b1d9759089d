package drivers

import (
	"bufio"
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// The environment of a process that a test starts: this binary again, with a job.
const (
	childJob    = "CARILLON_TEST_JOB" // jobStart, jobPoll or jobStall
	childDriver = "CARILLON_TEST_DRIVER"
	childDSN    = "CARILLON_TEST_DSN"

	jobStart = "start"
	jobPoll  = "poll"
	jobStall = "stall"
)

// A report is what such a process has to say, as one line of JSON.
type report struct {
	Site    string
	Secret  string // a hash of it
	Keys    int
	Epoch   uint64
	Members int           // that the first snapshot saw
	Rounds  int           // of polling
	Took    time.Duration // to start
	Stalled string        // the error of the call during which the process was stopped
	Error   string
}

// runChild says "ready", waits for its input to end, so that many begin together, does its job and reports.
func runChild(job string) int {
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	var r report
	err := func() error {
		// Stops the whole process when it is about to end a transaction.
		var stall atomic.Bool
		pool := sql.OpenDB(hookedConnector(os.Getenv(childDriver), os.Getenv(childDSN), func(query string, _ []driver.NamedValue) error {
			if query == "COMMIT" && stall.CompareAndSwap(true, false) {
				if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
					return err
				}
				<-time.After(100 * time.Millisecond) // another thread may take the signal while this one runs on
			}
			return nil
		}))
		defer pool.Close()
		db, err := sqlsite.New(pool)
		if err != nil {
			return err
		}
		defer db.Close()
		began := time.Now()
		m, err := startInstance(ctx, db, &r)
		r.Took = time.Since(began)
		if err != nil {
			return err
		}
		switch job {
		case jobPoll:
			err = pollChanges(ctx, db, m.Stream, &r)
		case jobStall:
			stall.Store(true)
			if err := db.Renew(ctx, m.Stream, site.Renewal{Lease: time.Minute}); err != nil {
				r.Stalled = err.Error()
			}
			err = db.Renew(ctx, m.Stream, site.Renewal{Lease: time.Minute})
		}
		if err != nil {
			return err
		}
		return db.Leave(ctx, m.Stream, site.Mark{Frame: 1, Next: 1})
	}()
	if err != nil {
		r.Error = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return 1
	}
	return 0
}

// startInstance does with the database what an instance does when it starts.
func startInstance(ctx context.Context, db site.Database, r *report) (site.Member, error) {
	s, err := db.EnsureSite(ctx, "app")
	if err != nil {
		return site.Member{}, err
	}
	r.Site, r.Keys = s.ID.String(), len(s.Keys)
	r.Secret = fmt.Sprintf("%x", sha256.Sum256(s.Keys[0].Secret.Reveal()))
	if r.Epoch, err = db.NextEpoch(ctx); err != nil {
		return site.Member{}, err
	}
	m := site.Member{Site: s.ID, Stream: site.NewStreamID(r.Epoch, 1<<32), Role: site.RolePublish, Server: "child"}
	if err := db.Join(ctx, m, time.Minute); err != nil {
		return site.Member{}, err
	}
	snap, err := db.Snapshot(ctx, m.Stream, []site.ID{s.ID})
	r.Members = len(snap.Members)
	return m, err
}

// pollChanges reads the changes twice a second for five seconds, and renews every second.
func pollChanges(ctx context.Context, db site.Database, self site.StreamID, r *report) error {
	var since site.Revision
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for ; r.Rounds < 10; r.Rounds++ {
		snap, err := db.Changes(ctx, since)
		if err != nil {
			return err
		}
		since = snap.Revision
		if r.Rounds%2 == 1 {
			if err := db.Renew(ctx, self, site.Renewal{Lease: time.Minute}); err != nil {
				return err
			}
		}
		<-tick.C
	}
	return nil
}

// A child is a process that waits to be let go.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	err strings.Builder
}

// spawn starts a process for job and returns when it is ready.
func spawn(t *testing.T, job, driver, dsn string) *child {
	t.Helper()
	c := &child{cmd: exec.CommandContext(t.Context(), os.Args[0])}
	c.cmd.Env = append(os.Environ(), childJob+"="+job, childDriver+"="+driver, childDSN+"="+dsn)
	c.cmd.Stderr = &c.err
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in, c.out = in, bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := c.out.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("a process said %q, %v; its errors: %s", line, err, c.err.String())
	}
	return c
}

// finish returns what the process reported.
func (c *child) finish() (report, error) {
	var r report
	decoded := json.NewDecoder(c.out).Decode(&r)
	if err := c.cmd.Wait(); err != nil {
		return r, fmt.Errorf("%w: %s", err, c.err.String())
	}
	if c.err.Len() > 0 {
		return r, fmt.Errorf("it wrote to its error output: %s", c.err.String())
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, decoded
}

const starting = 50

func TestEnsureSite_FiftyProcessesAgree(t *testing.T) {
	if testing.Short() {
		t.Skip("fifty processes are too many for a short test")
	}
	onEach(t, func(t *testing.T, e engine) {
		dsn := e.empty(t)
		var all []*child
		for range starting {
			all = append(all, spawn(t, jobStart, e.driver, dsn))
		}
		for _, c := range all {
			c.in.Close()
		}
		checkAgreement(t, all)

		sites, err := openSite(t, openPool(t, e.driver, dsn)).Sites(t.Context())
		if err != nil || len(sites) != 1 || len(sites[0].Keys) != 1 {
			t.Errorf("afterwards the database has %d sites, %v; want one with one key", len(sites), err)
		}
	})
}

func TestDatabase_PollsWhileFiftyProcessesStart(t *testing.T) {
	if testing.Short() {
		t.Skip("fifty processes are too many for a short test")
	}
	// Only SQLite locks the whole file, and its settings here are the plain ones.
	dsn := sqliteFile(t)
	const polling = 8
	var all []*child
	for range polling {
		all = append(all, spawn(t, jobPoll, "sqlite", dsn))
	}
	for range starting {
		all = append(all, spawn(t, jobStart, "sqlite", dsn))
	}
	for _, c := range all {
		c.in.Close()
	}
	for i, r := range checkAgreement(t, all) {
		if i < polling && r.Rounds != 10 {
			t.Errorf("process %d polled %d times, want 10", i, r.Rounds)
		}
	}
}

// checkAgreement waits for all and fails unless they got one site, one secret
// and an epoch each.
func checkAgreement(t *testing.T, all []*child) []report {
	t.Helper()
	var reports []report
	epochs := map[uint64]bool{}
	var slowest time.Duration
	for i, c := range all {
		r, err := c.finish()
		if err != nil {
			t.Errorf("process %d of %d: %v", i, len(all), err)
			continue
		}
		reports = append(reports, r)
		slowest = max(slowest, r.Took)
		if first := reports[0]; r.Site != first.Site || r.Secret != first.Secret || r.Keys != 1 {
			t.Errorf("process %d has site %s and secret hash %s, another %s and %s", i, r.Site, r.Secret, first.Site, first.Secret)
		}
		if epochs[r.Epoch] || r.Epoch == 0 {
			t.Errorf("process %d has the epoch %d of another", i, r.Epoch)
		}
		epochs[r.Epoch] = true
		if r.Members < 1 {
			t.Errorf("process %d saw %d members in its first snapshot, not even itself", i, r.Members)
		}
	}
	t.Logf("the slowest of %d took %v to start", len(all), slowest)
	return reports
}

// TestDatabase_AStoppedProcessHoldsNobodyForLong stops a process in the middle of a
// transaction, as a debugger or a suspended machine does.
func TestDatabase_AStoppedProcessHoldsNobodyForLong(t *testing.T) {
	if testing.Short() {
		t.Skip("servers take their time to end an idle transaction")
	}
	onEach(t, func(t *testing.T, e engine) {
		dsn := e.empty(t)
		t.Parallel() // most of it is waiting
		db := openSite(t, openPool(t, e.driver, dsn))
		s := mustEnsure(t, db)
		c := spawn(t, jobStall, e.driver, dsn)
		c.in.Close()
		if !eventually(20*time.Second, func() bool { return isStopped(c.cmd.Process.Pid) }) {
			t.Fatal("the process does not stop")
		}
		resume := func() { c.cmd.Process.Signal(syscall.SIGCONT) }
		defer resume()

		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		if e.driver == "sqlite" {
			// Nobody can take the file's lock from it. The others get a clear error in time.
			short, done := context.WithTimeout(ctx, 300*time.Millisecond)
			wantError(t, "Join while a stopped process holds the file", db.Join(short, newMember(s), time.Hour), site.ErrBusy)
			done()
			resume()
		}
		if err := db.Join(ctx, newMember(s), time.Hour); err != nil {
			t.Errorf("Join while a stopped process is in the middle of a transaction: %v", err)
		}
		resume()
		r, err := c.finish()
		if err != nil {
			t.Errorf("the process that was stopped, after it went on: %v", err)
		}
		if lost := r.Stalled != ""; lost != (e.driver != "sqlite") {
			t.Errorf("the call during which the process was stopped said %q", r.Stalled)
		}
	})
}

// isStopped reports whether the process is stopped by a signal.
func isStopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // "pid (name) state …"
	return strings.HasPrefix(rest, "T")
}
