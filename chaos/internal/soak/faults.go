//go:build linux

package soak

import (
	"time"

	"github.com/carillon-go/carillon/chaos/internal/cluster"
	"github.com/carillon-go/carillon/chaos/internal/lab"
	"github.com/carillon-go/carillon/chaos/internal/scenario"
)

// faults come at random.
type faults struct {
	*scenario.Stage
	count map[string]int // by name
}

// A fault is one thing that can go wrong. Two of one family would undo each other.
type fault struct {
	family, name string
	play         func(f *faults, meanwhile func())
}

// until lets faults come until then, one or two at a time.
func (f *faults) until(end time.Time) {
	all := everything()
	for time.Now().Before(end) && !f.Failed() {
		f.Wait(f.between(time.Second, 4*time.Second))
		first := all[f.Random.IntN(len(all))]
		f.count[first.name]++
		first.play(f, func() {
			if second := all[f.Random.IntN(len(all))]; second.family != first.family {
				f.count[second.name]++
				second.play(f, func() { f.last() })
			} else {
				f.last()
			}
		})
	}
}

// last is how long a fault lasts.
func (f *faults) last() {
	if f.Random.IntN(4) == 0 {
		f.Wait(f.between(5*time.Second, 15*time.Second))
	} else {
		f.Wait(f.between(200*time.Millisecond, 5*time.Second))
	}
}

func (f *faults) between(least, most time.Duration) time.Duration {
	return least + time.Duration(f.Random.Int64N(int64(most-least)))
}

// any returns one of the instances from the first given on.
func (f *faults) any(first int) *cluster.Instance {
	return f.Instances[first+f.Random.IntN(len(f.Instances)-first)]
}

// everything returns all that can go wrong.
func everything() []fault {
	const network, hub, process, db = "network", "hub", "process", "database"
	of := func(family, name string, which func(f *faults) (begin, end func() error)) fault {
		return fault{family, name, func(f *faults, meanwhile func()) {
			begin, end := which(f)
			f.Around(name, begin, end, meanwhile)
		}}
	}
	// net disturbs the network of the instances that which returns.
	net := func(family, name string, which func(f *faults) (lab.Faults, []*cluster.Instance)) fault {
		return of(family, name, func(f *faults) (begin, end func() error) {
			how, whom := which(f)
			return func() error { return scenario.SetFaults(how, whom...) },
				func() error { return scenario.SetFaults(lab.Faults{}, whom...) }
		})
	}
	disorder := func(name string, how func(f *faults) lab.Disorder) fault {
		return of(hub, name, func(f *faults) (begin, end func() error) {
			d := how(f)
			return func() error { return f.Lab.SetDisorder(d) }, func() error { return f.Lab.SetDisorder(lab.Disorder{}) }
		})
	}
	one := func(in *cluster.Instance) []*cluster.Instance { return []*cluster.Instance{in} }
	return []fault{
		net(network, "loss", func(f *faults) (lab.Faults, []*cluster.Instance) {
			losses := []float64{0.01, 0.05, 0.2, 0.5}
			return lab.Faults{LossIn: losses[f.Random.IntN(len(losses))]}, f.Instances
		}),
		net(network, "shared loss", func(f *faults) (lab.Faults, []*cluster.Instance) {
			return lab.Faults{LossOut: f.Random.Float64() / 2}, one(f.any(0))
		}),
		net(network, "one way", func(f *faults) (lab.Faults, []*cluster.Instance) {
			from := f.Random.IntN(len(f.Instances))
			return lab.Faults{DeafTo: f.Lab.Nodes[from : from+1]}, one(f.Instances[(from+1)%len(f.Instances)])
		}),
		net(network, "cut off", func(f *faults) (lab.Faults, []*cluster.Instance) {
			return lab.Faults{CutEvents: true}, one(f.any(0))
		}),
		net(network, "cut off, database too", func(f *faults) (lab.Faults, []*cluster.Instance) {
			return lab.Faults{CutEvents: true, CutDatabase: true}, one(f.any(0))
		}),
		net(network, "database cut off", func(f *faults) (lab.Faults, []*cluster.Instance) {
			return lab.Faults{CutDatabase: true}, one(f.any(0))
		}),
		net(network, "bandwidth", func(f *faults) (lab.Faults, []*cluster.Instance) {
			return lab.Faults{BitsPerSecond: 100_000 + f.Random.IntN(1_000_000)}, f.Instances
		}),
		disorder("delay", func(f *faults) lab.Disorder {
			return lab.Disorder{Delay: f.between(time.Millisecond, 100*time.Millisecond), Jitter: f.between(time.Millisecond, 100*time.Millisecond)}
		}),
		disorder("reordering", func(f *faults) lab.Disorder { return lab.Disorder{Reorder: f.Random.Float64() / 2} }),
		disorder("duplicates", func(f *faults) lab.Disorder { return lab.Disorder{Duplicate: f.Random.Float64() / 2} }),
		disorder("corruption", func(f *faults) lab.Disorder { return lab.Disorder{Corrupt: f.Random.Float64() / 5} }),
		of(process, "pause", func(f *faults) (begin, end func() error) {
			in := f.any(0)
			return in.Pause, in.Resume
		}),
		of(process, "kill -9", func(f *faults) (begin, end func() error) {
			in := f.any(spared)
			return func() error { in.Kill(); return nil }, in.Launch // into whatever else goes wrong
		}),
		{process, "restart", func(f *faults, meanwhile func()) {
			f.End(f.any(spared))
			meanwhile()
		}},
		of(db, "database killed", func(f *faults) (begin, end func() error) { return f.Database.Kill, f.Database.Restore }),
	}
}
