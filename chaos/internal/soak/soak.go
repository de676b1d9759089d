//go:build linux

// Package soak has instances run for a long time while faults come at random, and
// watches what they hear, how much memory they use, and how many goroutines they have.
package soak

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/carillon-go/carillon/chaos/internal/cluster"
	"github.com/carillon-go/carillon/chaos/internal/database"
	"github.com/carillon-go/carillon/chaos/internal/scenario"
)

const (
	instances   = 5
	spared      = 2   // of them are never killed, so that what they use can be seen over the whole time
	eventRate   = 150 // a second, all instances together
	eventBytes  = 200
	window      = 10 * time.Second
	sampleEvery = 2 * time.Second
	tellEvery   = 15 * time.Second
	rotateEvery = 30 * time.Second
)

// A Report is what a soak came to.
type Report struct {
	*scenario.Outcome
	Seed      uint64
	Began     time.Time
	Faulty    time.Duration // for which faults came
	Faults    map[string]int
	Samples   []Sample // by time
	Spared    int      // the first instances, which were never killed
	Instances int
}

// A Sample is what one process used at one moment.
type Sample struct {
	At         time.Duration // since the beginning
	Instance   int           // from 0
	PID        int           // another one after a restart
	RSSBytes   uint64
	HeapBytes  uint64
	Goroutines int
	Files      int
}

// Run has instances run for so long under random faults, and tells out how it goes on.
func Run(ctx context.Context, out io.Writer, d time.Duration, opt scenario.Options) (*Report, error) {
	r := &Report{Seed: opt.Seed, Began: time.Now(), Faulty: d, Faults: map[string]int{}, Spared: spared, Instances: instances}
	fmt.Fprintf(out, "soak: %d instances for %v, seed %d\n", instances, d, opt.Seed)
	var sampled, told time.Time
	o, err := scenario.Run(ctx, scenario.Scenario{
		Name: "soak", What: "Everything that can go wrong, at random.",
		Instances: instances, Hub: true, Database: database.PostgreSQL,
		Rate: eventRate, Bytes: eventBytes, Window: window, Load: d,
		Play: func(s *scenario.Stage) {
			f := faults{Stage: s, count: r.Faults}
			// That one fails while the database is away is no wonder; another follows.
			s.Rotating(rotateEvery, window+2*time.Second, func() { f.until(r.Began.Add(d)) })
		},
		Look: func(c *cluster.Cluster) {
			now := time.Now()
			if now.Sub(sampled) >= sampleEvery {
				sampled = now
				r.sample(c, now)
			}
			if now.Sub(told) >= tellEvery {
				told = now
				fmt.Fprintln(out, r.progress(c, now))
			}
		},
		Expect: []scenario.Expectation{func(*scenario.Outcome) error { return r.flat() }},
	}, opt)
	r.Outcome = o
	return r, err
}

func (r *Report) sample(c *cluster.Cluster, now time.Time) {
	for i, in := range c.Instances {
		s, at := in.Sample()
		if now.Sub(at) > sampleEvery {
			continue // it is dead, or stands still
		}
		r.Samples = append(r.Samples, Sample{
			At: now.Sub(r.Began), Instance: i, PID: in.PID(),
			RSSBytes: s.RSSBytes, HeapBytes: s.HeapBytes, Goroutines: s.Goroutines, Files: s.Files,
		})
	}
}

// progress says in one line how it goes.
func (r *Report) progress(c *cluster.Cluster, now time.Time) string {
	var raised, heard, missed, memory uint64
	running := 0
	for _, in := range c.Instances {
		s, at := in.Sample()
		raised, heard, missed = raised+s.Raised, heard+s.Received, missed+s.Missed
		if in.Running() && now.Sub(at) < sampleEvery {
			running++
			memory = max(memory, s.RSSBytes)
		}
	}
	n := 0
	for _, count := range r.Faults {
		n += count
	}
	return fmt.Sprintf("soak: %v of %v, %d faults so far, %d of %d instances answer; these processes: %d raises, %d received, %d missed, at most %d MiB",
		now.Sub(r.Began).Round(time.Second), r.Faulty, n, running, len(c.Instances), raised, heard, missed, memory>>20)
}

const (
	quarters     = 4
	earlyQuarter = 1 // counted from 0: what is used at the start grows to its normal size before
	lateQuarter  = quarters - 1

	tolerance = 1.25 // how much more may be used at the end
	someBytes = 8 << 20
	someMore  = 5
)

// A measure is something that must not grow.
type measure struct {
	name  string
	value func(Sample) uint64
	more  uint64 // that is tolerated at any rate
}

func measures() []measure {
	return []measure{
		{"heap", func(s Sample) uint64 { return s.HeapBytes }, someBytes},
		{"goroutines", func(s Sample) uint64 { return uint64(s.Goroutines) }, someMore},
		{"open files", func(s Sample) uint64 { return uint64(s.Files) }, someMore},
	}
}

// text returns a value for people.
func (m *measure) text(v uint64) string {
	if m.more == someBytes {
		return fmt.Sprintf("%.1f MiB", float64(v)/bytesPerMiB)
	}
	return fmt.Sprint(v)
}

// flat returns an error unless the processes that were never killed use as much at the end as
// earlier.
func (r *Report) flat() error {
	for i := range r.Spared {
		for _, m := range measures() {
			early, late := r.median(i, earlyQuarter, m.value), r.median(i, lateQuarter, m.value)
			if early == 0 {
				continue // a soak too short to tell
			}
			if float64(late) > float64(early)*tolerance && late > early+m.more {
				return fmt.Errorf("%s of instance %d: %s in the second quarter of the time and %s in the last", m.name, i, m.text(early), m.text(late))
			}
		}
	}
	return nil
}

// median returns the median of what an instance used in a quarter of the time, counted from 0; 0 if
// that is not known.
func (r *Report) median(instance, quarter int, value func(Sample) uint64) uint64 {
	var values []uint64
	lo := r.Faulty / quarters * time.Duration(quarter)
	for _, s := range r.Samples {
		if s.Instance == instance && s.At >= lo && s.At < lo+r.Faulty/quarters {
			values = append(values, value(s))
		}
	}
	if len(values) == 0 {
		return 0
	}
	slices.SortFunc(values, cmp.Compare)
	return values[len(values)/2]
}
