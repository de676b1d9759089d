//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-go/carillon/site"
)

// A peerProcess is a running peer, seen from outside.
type peerProcess struct {
	t       *testing.T
	name    string
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	started time.Time
	stderr  *output
	reports chan *peerReport
	done    chan struct{}

	inStep peerInStep // set when startPeer has returned

	mu     sync.Mutex
	missed []peerMissed
	failed string
}

// peers starts peers on a database of their own.
type peers struct {
	t        *testing.T
	file     string
	provider string
	udpPort  int
	config   peerConfig // beside what is above
}

func newPeers(t *testing.T, provider string) *peers {
	t.Helper()
	port, err := freeUDPPort()
	if err != nil {
		t.Fatal(err)
	}
	return &peers{t: t, file: filepath.Join(t.TempDir(), "site.db"), provider: provider, udpPort: port}
}

// start returns when the peer is in step.
func (ps *peers) start(name string) *peerProcess {
	ps.t.Helper()
	t := ps.t
	peer := ps.config
	peer.Name, peer.File, peer.Provider, peer.UDPPort = name, ps.file, ps.provider, ps.udpPort
	cfg, err := json.Marshal(peer)
	if err != nil {
		t.Fatal(err)
	}
	p := &peerProcess{
		t: t, name: name, cmd: program(t, "peer"), stderr: new(output),
		reports: make(chan *peerReport, 1), done: make(chan struct{}),
	}
	p.cmd.Env = append(p.cmd.Env, peerConfigEnv+"="+string(cfg))
	p.cmd.Stderr = p.stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inStep := make(chan peerInStep, 1)
	go p.follow(stdout, inStep)
	t.Cleanup(p.end)
	select {
	case p.inStep = <-inStep:
	case <-p.done:
		t.Fatalf("%s ended: %s %s", name, p.failed, p.stderr)
	case <-time.After(patience):
		t.Fatalf("%s was not in step within %v: %s", name, patience, p.stderr)
	}
	return p
}

func (p *peerProcess) follow(stdout io.Reader, inStep chan<- peerInStep) {
	defer close(p.done)
	dec := json.NewDecoder(bufio.NewReader(stdout))
	for {
		var l peerLine
		if dec.Decode(&l) != nil {
			break
		}
		switch {
		case l.InStep != nil:
			inStep <- *l.InStep
		case l.Report != nil:
			p.reports <- l.Report
		case l.Missed != nil:
			p.mu.Lock()
			p.missed = append(p.missed, *l.Missed)
			p.mu.Unlock()
		case l.Failed != "":
			p.failed = l.Failed
		}
	}
	p.cmd.Wait() // it was killed, mostly
}

func (p *peerProcess) say(word string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, word+"\n"); err != nil {
		p.t.Fatalf("%s does not listen to %q: %v: %s", p.name, word, err, p.stderr)
	}
}

// report asks the peer for its ledger.
func (p *peerProcess) report() *peerReport {
	p.t.Helper()
	p.say("report")
	select {
	case r := <-p.reports:
		return r
	case <-p.done:
		p.t.Fatalf("%s ended: %s", p.name, p.stderr)
	case <-time.After(patience):
		p.t.Fatalf("%s does not report: %s", p.name, p.stderr)
	}
	return nil
}

func (p *peerProcess) misses() []peerMissed {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.missed)
}

func (p *peerProcess) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %v to %s: %v", s, p.name, err)
	}
}

// kill ends the peer by the signal that cannot be caught.
func (p *peerProcess) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.done
}

func (p *peerProcess) end() {
	p.stdin.Close()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.cmd.Process.Kill() // the next line tells
		p.t.Errorf("%s did not end with its standard input", p.name)
	}
}

// A span is a run of ordinals, both ends included.
type span = [2]uint64

// settle waits until every one of the peers has heard or missed everything that
// every other one of them has raised, and returns their ledgers.
func settle(t *testing.T, all ...*peerProcess) map[*peerProcess]*peerReport {
	t.Helper()
	reports := map[*peerProcess]*peerReport{}
	eventually(t, patience, "every event is heard or missed", func() bool {
		for _, p := range all {
			reports[p] = p.report()
		}
		for _, r := range all {
			for _, s := range all {
				if r == s {
					continue
				}
				want := uint64(len(reports[s].Raised))
				var end uint64
				for _, c := range covered(reports[r], r.misses(), s.inStep.Stream) {
					end = max(end, c[1]+1)
				}
				if end != want {
					return false
				}
			}
		}
		return true
	})
	return reports
}

// covered returns what a peer has heard or missed of a stream, ascending.
func covered(r *peerReport, missed []peerMissed, stream string) (spans []span) {
	if h := r.Heard[stream]; h != nil {
		spans = append(spans, h.Ranges...)
	}
	for _, m := range missed {
		if m.Stream == stream && m.Count > 0 {
			spans = append(spans, span{m.First, m.Last})
		}
	}
	slices.SortFunc(spans, func(a, b span) int {
		if a[0] < b[0] {
			return -1
		}
		return 1
	})
	return spans
}

// summedUp is the stream of a report that stands for several streams: those of
// one moment are merged into one.
var summedUp = site.StreamID{}.String()

// checkLedgers checks what each of the peers has on the streams of the others:
// every event once, heard or missed, from a baseline on that leaves out nothing raised
// after it was in step; and nothing missed that was raised before. It returns how many events
// each of them has missed.
func checkLedgers(t *testing.T, reports map[*peerProcess]*peerReport) (missed map[*peerProcess]uint64) {
	t.Helper()
	missed = map[*peerProcess]uint64{}
	for r := range reports {
		var holes, untold uint64
		for s := range reports {
			if r == s {
				continue
			}
			heard, told, hole := checkLedger(t, r, s, reports)
			holes += hole
			missed[r] += told + hole
			t.Logf("%s heard %d and missed %d of %s", r.name, heard, told+hole, s.name)
		}
		for _, m := range r.misses() {
			if !m.Exact {
				t.Errorf("%s missed %+v, not an exact count", r.name, m)
			}
			if m.Stream == summedUp {
				untold += m.Count
			}
		}
		if holes != untold {
			t.Errorf("%s lacks %d events of streams not named, and missed %d", r.name, holes, untold)
		}
	}
	return missed
}

// checkLedger checks what r has of s. It returns how many events it heard, how
// many it missed by name of the stream, and how many are neither.
func checkLedger(t *testing.T, r, s *peerProcess, reports map[*peerProcess]*peerReport) (heard, missed, holes uint64) {
	t.Helper()
	h := reports[r].Heard[s.inStep.Stream]
	if h != nil {
		if len(h.Twice) > 0 {
			t.Errorf("%s heard events of %s twice: %v", r.name, s.name, h.Twice)
		}
		for _, c := range h.Ranges {
			heard += c[1] - c[0] + 1
		}
	}
	raised := reports[s].Raised
	// early checks that an event that was missed was not raised before r was in
	// step. It certainly was when the next one began to be.
	early := func(n uint64) {
		if next := n + 1; next < uint64(len(raised)) && raised[next] < r.inStep.At {
			t.Errorf("%s missed event %d of %s, raised %d µs before it was in step", r.name, n, s.name, r.inStep.At-raised[next])
		}
	}
	spans := covered(reports[r], r.misses(), s.inStep.Stream)
	for i, c := range spans {
		switch {
		case i == 0:
			for n := range c[0] {
				if raised[n] > r.inStep.At {
					t.Errorf("%s knows nothing of event %d of %s, raised %d µs after it was in step", r.name, n, s.name, raised[n]-r.inStep.At)
					break
				}
			}
		case c[0] <= spans[i-1][1]:
			t.Errorf("%s has %d to %d of %s both heard and missed, or missed twice", r.name, c[0], spans[i-1][1], s.name)
		case c[0] > spans[i-1][1]+1:
			holes += c[0] - spans[i-1][1] - 1
			early(spans[i-1][1] + 1)
		}
	}
	for _, m := range r.misses() {
		if m.Stream != s.inStep.Stream || m.Count == 0 {
			continue
		}
		missed += m.Count
		if m.Last-m.First+1 != m.Count && m.Reports == 1 {
			t.Errorf("%s missed %+v of %s", r.name, m, s.name)
		}
		early(m.First)
	}
	return heard, missed, holes
}

// checkHealth checks that no peer panicked or could not raise.
func checkHealth(t *testing.T, reports map[*peerProcess]*peerReport) {
	t.Helper()
	for p, r := range reports {
		if len(r.Errors) > 0 || r.Panics > 0 {
			t.Errorf("%s: %d panics, raise: %v", p.name, r.Panics, r.Errors)
		}
	}
}

// An instance is killed and restarted ten times, while it and all others raise events.
func TestProcess_KilledAndRestartedUnderLoad(t *testing.T) {
	for _, provider := range providers {
		t.Run(provider, func(t *testing.T) {
			ps := newPeers(t, provider)
			a, b, k := ps.start("a"), ps.start("b"), ps.start("k")
			for _, p := range []*peerProcess{a, b, k} {
				p.say("go")
			}
			restarts := 10
			if testing.Short() {
				restarts = 3
			}
			var took, open []time.Duration
			for range restarts {
				runsFor(t, a, 50) // the load between two deaths
				k.kill()
				k = ps.start("k")
				took = append(took, time.UnixMicro(k.inStep.At).Sub(k.started))
				open = append(open, k.inStep.Open)
				k.say("go")
			}
			runsFor(t, a, 2*int(peerMissedAfter/peerEvery)) // whatever is missing is found out
			for _, p := range []*peerProcess{a, b, k} {
				p.say("quiet")
			}
			reports := settle(t, a, b, k)
			checkHealth(t, reports)
			for p, n := range checkLedgers(t, reports) {
				if provider == "tcp" && n > 0 {
					t.Errorf("%s missed %d events over %s", p.name, n, provider)
				}
			}
			slices.Sort(took)
			slices.Sort(open)
			t.Logf("in step again after a median of %v and at most %v from the start of the process; Open itself %v and %v",
				took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond),
				open[len(open)/2].Round(time.Millisecond), open[len(open)-1].Round(time.Millisecond))
		})
	}
}

// runsFor waits until p has raised n more events.
func runsFor(t *testing.T, p *peerProcess, n int) {
	t.Helper()
	until := len(p.report().Raised) + n
	eventually(t, patience, fmt.Sprintf("%s has raised %d more events", p.name, n), func() bool { return len(p.report().Raised) >= until })
}

// An instance is cut off while all raise events: what it lost is repaired, each
// event once, and so is what others lost of it.
func TestProcess_CutOffUnderLoad(t *testing.T) {
	for _, provider := range providers {
		t.Run(provider, func(t *testing.T) {
			ps := newPeers(t, provider)
			a, b, k := ps.start("a"), ps.start("b"), ps.start("k")
			for _, p := range []*peerProcess{a, b, k} {
				p.say("go")
			}
			for range 3 {
				runsFor(t, a, 50)
				k.say("cut")
				runsFor(t, a, 50)
				k.say("heal")
			}
			runsFor(t, a, 2*int(peerMissedAfter/peerEvery))
			for _, p := range []*peerProcess{a, b, k} {
				p.say("quiet")
			}
			reports := settle(t, a, b, k)
			checkHealth(t, reports)
			missed := checkLedgers(t, reports)
			for _, p := range []*peerProcess{a, b, k} {
				if missed[p] > 0 {
					t.Errorf("%s missed %d events", p.name, missed[p])
				}
			}
		})
	}
}

// An instance stands still for a while, as a virtual machine does that is being moved.
// CARILLON_LONG=1 makes it half a minute.
func TestProcess_Stopped(t *testing.T) {
	still := 3 * time.Second
	if os.Getenv("CARILLON_LONG") == "1" {
		still = 30 * time.Second
	}
	for _, provider := range providers {
		t.Run(provider, func(t *testing.T) {
			ps := newPeers(t, provider)
			a, b, k := ps.start("a"), ps.start("b"), ps.start("k")
			for _, p := range []*peerProcess{a, b, k} {
				p.say("go")
			}
			runsFor(t, a, 50)
			k.signal(syscall.SIGSTOP)
			stoppedAt := time.Now()
			before := len(a.report().Raised)
			<-time.After(still)
			during := len(a.report().Raised) - before
			k.signal(syscall.SIGCONT)
			stoppedFor := time.Since(stoppedAt)
			runsFor(t, a, 2*int(peerMissedAfter/peerEvery))
			for _, p := range []*peerProcess{a, b, k} {
				p.say("quiet")
			}
			reports := settle(t, a, b, k)
			checkHealth(t, reports)
			if during == 0 {
				t.Error("the others stood still as well")
			}
			for p, n := range checkLedgers(t, reports) {
				if p != k && n > 0 && provider == "tcp" {
					t.Errorf("%s missed %d events, though only k stood still", p.name, n)
				}
			}
			var pause int64
			for i, at := range reports[a].Raised[1:] {
				pause = max(pause, at-reports[a].Raised[i])
			}
			t.Logf("k stood still for %v, in which a raised %d events; its longest pause was %v",
				stoppedFor.Round(time.Millisecond), during, (time.Duration(pause) * time.Microsecond).Round(time.Millisecond))
		})
	}
}
