//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-go/carillon/examples/cms/dashboard"
	"github.com/carillon-go/carillon/provider/providertest"
)

// TestMain lets the test program be the carillon program too, and a bare
// instance: so the processes are real, and run under the race detector when the
// tests do.
func TestMain(m *testing.M) {
	switch os.Getenv(actAs) {
	case "carillon":
		main()
	case "peer":
		runPeer()
	default:
		os.Exit(m.Run())
	}
}

const actAs = "CARILLON_TEST_ACT_AS"

// program returns a command that runs this program as what. A data race in it, or in any of its
// children, fails the test.
func program(t *testing.T, what string, args ...string) *exec.Cmd {
	t.Helper()
	races := filepath.Join(t.TempDir(), "race")
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = t.TempDir() // no appsettings.json
	cmd.Env = append(os.Environ(), actAs+"="+what, "GORACE=atexit_sleep_ms=0 log_path="+races)
	t.Cleanup(func() {
		found, err := filepath.Glob(races + ".*")
		if err != nil {
			t.Error(err)
		}
		for _, f := range found {
			b, _ := os.ReadFile(f)
			t.Errorf("a process found a data race:\n%s", b)
		}
	})
	return cmd
}

// An output collects what a process writes. It is safe for concurrent use.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// A result is how a command ended.
type result struct {
	code     int
	out, err string
}

// carillonCmd runs the carillon program to its end.
func carillonCmd(t *testing.T, env []string, args ...string) result {
	t.Helper()
	cmd := program(t, "carillon", args...)
	cmd.Env = append(cmd.Env, env...)
	var out, errOut output
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() {
		t.Errorf("carillon %v did not end within %v", args, patience)
		cmd.Process.Kill() // it has ended in this moment
	})
	err := cmd.Wait()
	late.Stop()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errOut.String()}
}

// eventually waits until ok returns true, for at most limit.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("within %v not: %s", limit, what)
		}
	}
}

// patience is for what happens at once on a machine that has nothing else to do.
const patience = 30 * time.Second

// A demo is a running demonstration.
type demo struct {
	t        *testing.T
	n        int
	port     int
	tmp      string // what the processes have for TMPDIR
	folder   string // the temporary folder in it
	cmd      *exec.Cmd
	out, err *output
	done     chan struct{}
	client   *http.Client
}

// freePorts returns the first of n ports in a row that nobody uses, nor is lent, before the test ends.
func freePorts(t *testing.T, n int) int {
	t.Helper()
	for range 200 {
		first, release, err := providertest.ReservePort(0)
		if err != nil {
			t.Fatal(err)
		}
		all := []func(){release}
		for len(all) < n && err == nil && first+n < 65535 {
			if _, release, err = providertest.ReservePort(first + len(all)); err == nil {
				all = append(all, release)
			}
		}
		if len(all) == n {
			for _, release := range all {
				t.Cleanup(release)
			}
			return first
		}
		for _, release := range all {
			release()
		}
	}
	t.Fatalf("no %d free ports in a row", n)
	return 0
}

// startDemo starts the demonstration with n instances and waits until it says
// that it is there. It is stopped at the end of the test, and must leave nothing
// behind.
func startDemo(t *testing.T, n int, args ...string) *demo {
	t.Helper()
	d := &demo{
		t: t, n: n, port: freePorts(t, n+1), tmp: t.TempDir(),
		out: new(output), err: new(output), done: make(chan struct{}),
		client: &http.Client{
			Timeout:       patience,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	args = append([]string{"demo", "--instances", fmt.Sprint(n), "--port", fmt.Sprint(d.port)}, args...)
	d.cmd = program(t, "carillon", args...)
	d.cmd.Env = append(d.cmd.Env, "TMPDIR="+d.tmp)
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.err
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.cmd.Wait() // ProcessState says it
		close(d.done)
	}()
	t.Cleanup(d.stop)
	eventually(t, patience, "the demonstration says that it is there: "+d.err.String(), func() bool {
		select {
		case <-d.done:
			t.Fatalf("the demonstration ended: %s", d.err)
		default:
		}
		return strings.Contains(d.out.String(), "Ctrl-C")
	})
	d.folder = regexp.MustCompile(`removes (\S+)\.\n`).FindStringSubmatch(d.out.String())[1]
	return d
}

// stop presses Ctrl-C and checks what is left. The second call does nothing.
func (d *demo) stop() {
	d.t.Helper()
	if d.ended() {
		return
	}
	pids := d.pids()
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		d.t.Error(err)
	}
	select {
	case <-d.done:
	case <-time.After(patience):
		d.cmd.Process.Kill() // the next line tells
		d.t.Errorf("the demonstration did not end within %v", patience)
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		d.t.Errorf("exit code %d after Ctrl-C: %s", code, d.err)
	}
	d.nothingLeft(pids)
}

func (d *demo) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// nothingLeft checks that neither processes nor files remain.
func (d *demo) nothingLeft(pids []int) {
	d.t.Helper()
	for _, pid := range pids {
		eventually(d.t, patience, fmt.Sprintf("process %d ends", pid), func() bool {
			return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
		})
	}
	eventually(d.t, patience, "the temporary folder is gone", func() bool {
		left, err := os.ReadDir(d.tmp)
		return err == nil && len(left) == 0
	})
}

// instances returns what the dashboard knows.
func (d *demo) instances() []dashboard.Instance {
	d.t.Helper()
	var all []dashboard.Instance
	resp := d.get(0, "/instances")
	if err := json.Unmarshal([]byte(resp.body), &all); err != nil {
		d.t.Fatalf("%v in %q", err, resp.body)
	}
	return all
}

func (d *demo) pids() (pids []int) {
	for _, in := range d.instances() {
		if in.PID != 0 {
			pids = append(pids, in.PID)
		}
	}
	return pids
}

// url returns an address on an instance, or with 0 on the dashboard.
func (d *demo) url(instance int, path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", d.port+instance, path)
}

// An answer is a response.
type answer struct {
	code     int
	cache    string // X-Cache
	location string
	body     string
}

func (d *demo) get(instance int, path string) answer {
	d.t.Helper()
	a, err := d.tryGet(instance, path)
	if err != nil {
		d.t.Fatal(err)
	}
	return a
}

func (d *demo) tryGet(instance int, path string) (answer, error) {
	resp, err := d.client.Get(d.url(instance, path))
	return read(resp, err)
}

// post sends a form; the pairs are names and values.
func (d *demo) post(instance int, path string, pairs ...string) answer {
	d.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	resp, err := d.client.PostForm(d.url(instance, path), form)
	a, err := read(resp, err)
	if err != nil {
		d.t.Fatal(err)
	}
	if a.code != http.StatusSeeOther {
		d.t.Fatalf("POST %s on instance %d: %d %s", path, instance, a.code, a.body)
	}
	return a
}

func read(resp *http.Response, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header.Get("X-Cache"), resp.Header.Get("Location"), string(b)}, err
}

// A feedEntry is a report on the dashboard.
type feedEntry struct {
	Instance int    `json:"instance"`
	Kind     string `json:"kind"`
	Event    string `json:"event"`
	Key      string `json:"key"`
	From     string `json:"from"`
	Count    uint64 `json:"count"`
	Unit     string `json:"unit"`
	Reason   string `json:"reason"`
}

// feed follows the dashboard's feed from its beginning until the test ends, and
// returns what has come so far.
func (d *demo) feed() (entries func() []feedEntry) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", d.url(0, "/events"), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	var mu sync.Mutex
	var all []feedEntry
	go func() {
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		name := ""
		for lines.Scan() {
			key, value, _ := strings.Cut(lines.Text(), ": ")
			switch {
			case key == "event":
				name = value
			case key == "data" && name == "report":
				var e feedEntry
				if json.Unmarshal([]byte(value), &e) == nil {
					mu.Lock()
					all = append(all, e)
					mu.Unlock()
				}
			}
		}
	}()
	return func() []feedEntry {
		mu.Lock()
		defer mu.Unlock()
		return append([]feedEntry(nil), all...)
	}
}
