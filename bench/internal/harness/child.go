//go:build linux

package harness

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/carillon-go/carillon/bench/internal/board"
	"github.com/carillon-go/carillon/bench/internal/system"
)

// Every event begins with its number and, in paced phases, with the time at which it was due.
const (
	numberAt     = 0
	timeAt       = 8
	SmallestSize = 16
)

const openTimeout = 60 * time.Second // for servers that take their time

// ChildArgument is the first argument of a process that is to call [Child].
const ChildArgument = "child"

// Child is a publisher's or a subscriber's process, from beginning to end. argument is what
// the benchmark passed to it. It returns the exit status.
func Child(argument string, find func(name string) *system.System) int {
	// Ctrl-C reaches all processes of a terminal. The benchmark decides what to end, and
	// its going is seen at standard input.
	signal.Ignore(syscall.SIGINT)
	var a assignment
	if err := json.Unmarshal([]byte(argument), &a); err != nil {
		fmt.Fprintln(os.Stderr, "benchmark's child: read the assignment:", err)
		return 2
	}
	in, lost := watchInput()
	go func() {
		<-lost
		os.Exit(3) // whatever hangs: no process outlives the benchmark
	}()
	if err := a.run(in, find(a.System)); err != nil {
		fmt.Fprintf(os.Stderr, "%s of %s: %v\n", a.name(), a.System, err)
		return 1
	}
	return 0
}

// watchInput passes standard input on, and says when it has ended.
func watchInput() (in io.Reader, lost <-chan struct{}) {
	r, w := io.Pipe()
	ended := make(chan struct{})
	go func() {
		io.Copy(w, os.Stdin)
		close(ended)
		w.Close()
	}()
	return r, ended
}

func (a assignment) run(in io.Reader, sys *system.System) error {
	if sys == nil {
		return obey(in, failed(fmt.Errorf("there is no system %q", a.System)), nil)
	}
	if a.MemProfile != "" {
		runtime.MemProfileRate = 4096
	}
	b, err := board.Open(a.Board)
	if err != nil {
		return obey(in, failed(err), nil)
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	if a.Role == publishing {
		p, err := newPublisher(ctx, a, sys, b)
		if err != nil {
			return obey(in, failed(err), nil)
		}
		return obey(in, answer{Address: p.system.Address()}, p.do)
	}
	s, err := newSubscriber(ctx, a, sys, b)
	if err != nil {
		return obey(in, failed(err), nil)
	}
	return obey(in, answer{}, s.do)
}

// report asks the system what it thinks of the run.
func report(v any) answer {
	r, ok := v.(system.Reporter)
	if !ok {
		return answer{}
	}
	facts, err := r.Report()
	a := answer{Facts: facts}
	if err != nil {
		a.Err = err.Error()
	}
	return a
}

// A profiler writes the processor profile of one phase, and counts what a phase allocates.
type profiler struct {
	a       assignment
	file    *os.File
	objects uint64
}

func (p *profiler) begin(profile bool) error {
	if profile && p.a.CPUProfile != "" {
		f, err := os.Create(filepath.Join(p.a.CPUProfile, p.a.name()+".cpu.pprof"))
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		p.file = f
	}
	p.objects = allocated()
	return nil
}

// end returns how many objects were allocated for each of so many events.
func (p *profiler) end(events uint64) float64 {
	objects := allocated() - p.objects
	if p.file != nil {
		pprof.StopCPUProfile()
		p.file.Close()
		p.file = nil
	}
	return float64(objects) / float64(max(events, 1))
}

// close writes the profile of memory.
func (p *profiler) close() error {
	if p.a.MemProfile == "" {
		return nil
	}
	f, err := os.Create(filepath.Join(p.a.MemProfile, p.a.name()+".mem.pprof"))
	if err != nil {
		return err
	}
	defer f.Close()
	runtime.GC() // the profile is as of the last collection
	return pprof.Lookup("allocs").WriteTo(f, 0)
}

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func number(event []byte) uint64 { return binary.LittleEndian.Uint64(event[numberAt:]) }

func intended(event []byte) int64 { return int64(binary.LittleEndian.Uint64(event[timeAt:])) }

func stamp(event []byte, number uint64, intended int64) {
	binary.LittleEndian.PutUint64(event[numberAt:], number)
	binary.LittleEndian.PutUint64(event[timeAt:], uint64(intended))
}
