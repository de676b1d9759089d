package main

import (
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon/internal/sim"
)

// many runs seeds one after the other, several at once.
type many struct {
	from, seeds uint64
	workers     int
	out         io.Writer
	progress    bool

	next, done, failures atomic.Uint64
	mu                   sync.Mutex // guards the fields below, and out
	kinds                map[string]uint64
	raises, raised       uint64
	missed, lost         uint64
}

// maxShown is how many failures are printed; beyond it they are counted.
const maxShown = 20

func (m *many) run() (status int) {
	m.kinds = map[string]uint64{}
	began := time.Now()
	stop := make(chan struct{})
	var reporter sync.WaitGroup
	if m.progress {
		reporter.Go(func() { m.report(began, stop) })
	}
	var workers sync.WaitGroup
	for range m.workers {
		workers.Go(m.work)
	}
	workers.Wait()
	close(stop)
	reporter.Wait()

	for kind, n := range m.kinds {
		fmt.Fprintf(m.out, "%d × %s\n", n, kind)
	}
	fmt.Fprintf(m.out, "%d raises, %d Raised, %d Missed, %d lost with their sender\n", m.raises, m.raised, m.missed, m.lost)
	failures := m.failures.Load()
	fmt.Fprintf(m.out, "%d seeds, %d failures, %.0f seeds/s\n", m.seeds, failures, float64(m.seeds)/time.Since(began).Seconds())
	if failures > 0 {
		return 1
	}
	return 0
}

func (m *many) work() {
	for {
		n := m.next.Add(1)
		if n > m.seeds {
			return
		}
		m.one(m.from + n - 1)
		m.done.Add(1)
	}
}

func (m *many) one(seed uint64) {
	r := sim.Run(sim.Generate(seed), nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.raises += r.Verdict.Raises
	m.raised += r.Verdict.Raised
	m.missed += r.Verdict.Missed
	m.lost += r.Verdict.Lost
	if r.Holds() {
		return
	}
	m.kinds[r.Kind()]++
	if m.failures.Add(1) > maxShown {
		return
	}
	why := ""
	switch {
	case r.Err != nil:
		why = r.Err.Error()
	case len(r.Verdict.Violations) > 0:
		why = fmt.Sprintf("%d violations, the first one %v", r.Verdict.Broken, r.Verdict.Violations[0])
	}
	fmt.Fprintf(m.out, "seed %d failed at %s: %s\n  replay: go run ./internal/sim/simulate -seed %d\n", seed, commit(), why, seed)
}

func (m *many) report(began time.Time, stop <-chan struct{}) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			done := m.done.Load()
			m.mu.Lock()
			fmt.Fprintf(m.out, "%d of %d seeds, %d failures, %.0f seeds/s\n", done, m.seeds, m.failures.Load(), float64(done)/time.Since(began).Seconds())
			m.mu.Unlock()
		case <-stop:
			return
		}
	}
}

// commit names the source that runs, as far as git knows it.
var commit = sync.OnceValue(func() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "an unknown commit"
	}
	return strings.TrimSpace(string(out))
})
