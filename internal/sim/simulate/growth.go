package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/carillon-go/carillon/internal/sim"
)

// A grower runs sites of many sizes on many networks, several at once, each in one thread.
type grower struct {
	networks []string
	sizes    []int
	workers  int
	out      io.Writer
	progress io.Writer // nil: nobody looks

	plots  int        // to be run
	mu     sync.Mutex // guards the fields below, and the writers
	all    []sim.Growth
	failed bool
}

// largestOnBroker is the largest site that is run on a message broker. Larger ones hear what those
// on UDP hear, and their own frames.
const largestOnBroker = 256

// A plot is a site to be run.
type plot struct {
	network string
	n       int
}

// run prints what the sites cost, and writes it into the documentation in folder
// publish unless that is empty. It returns the exit status.
func (g *grower) run(publish string) int {
	var plots []plot
	for _, network := range g.networks {
		for _, n := range g.sizes {
			if network != "broker" || n <= largestOnBroker {
				plots = append(plots, plot{network, n})
			}
		}
	}
	slices.SortStableFunc(plots, func(a, b plot) int { return b.n - a.n }) // the long ones first
	g.plots = len(plots)
	began := time.Now()
	todo := make(chan plot)
	var workers sync.WaitGroup
	for range g.workers {
		workers.Go(func() {
			for p := range todo {
				g.one(p)
			}
		})
	}
	for _, p := range plots {
		todo <- p
	}
	close(todo)
	workers.Wait()
	switch {
	case g.failed:
		return 1
	case publish == "":
		return 0
	}
	slices.SortFunc(g.all, func(a, b sim.Growth) int { return a.Instances - b.Instances })
	if err := publishGrowth(publish, g.all, time.Since(began)); err != nil {
		fail(err)
	}
	return 0
}

func (g *grower) one(p plot) {
	grown := sim.Grow(p.network, p.n, g.report(p))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = append(g.all, grown)
	g.clearLine()
	fmt.Fprintf(g.out, "%s, %d instances, in %v\n", p.network, p.n, grown.Took.Round(time.Millisecond))
	printPhases(g.out, &grown)
	g.failed = !good(g.out, &grown) || g.failed
}

// report returns a function that tells about once a second how far a site is.
func (g *grower) report(p plot) func(string, time.Duration) {
	if g.progress == nil {
		return nil
	}
	began := time.Now()
	shown := began
	return func(phase string, at time.Duration) {
		now := time.Now()
		if now.Sub(shown) < time.Second {
			return
		}
		shown = now
		g.mu.Lock()
		defer g.mu.Unlock()
		g.clearLine()
		fmt.Fprintf(g.progress, "%d of %d sites; %s, %d instances: %s, %v simulated in %v", len(g.all), g.plots,
			p.network, p.n, phase, at, now.Sub(began).Round(time.Second))
	}
}

func (g *grower) clearLine() {
	if g.progress != nil {
		fmt.Fprint(g.progress, "\r\033[K")
	}
}

// good reports whether nothing was missed and the promise kept, and prints what was not.
func good(out io.Writer, g *sim.Growth) bool {
	ok := g.Result.Holds()
	if !ok {
		fmt.Fprintf(out, "  FAILED: %v %v\n", g.Result.Err, &g.Result.Verdict)
	}
	for _, p := range g.Phases {
		if p.Missed > 0 || p.Open > 0 {
			fmt.Fprintf(out, "  FAILED: %d events missed and %d frames still open after %q\n", p.Missed, p.Open, p.Name)
			ok = false
		}
	}
	return ok
}

// printPhases prints a line for each phase: of each kind the frames sent and heard per
// instance and second, and the bytes heard.
func printPhases(out io.Writer, g *sim.Growth) {
	for _, p := range g.Phases {
		per := float64(g.Instances) * p.Length.Seconds()
		fmt.Fprintf(out, "  %-12s", p.Name)
		for k := range sim.NumKinds {
			if s, r := p.Sent[k], p.Received[k]; s.Frames+r.Frames > 0 {
				fmt.Fprintf(out, " %v %.3g/%.4g %.3g kB", k, float64(s.Frames)/per, float64(r.Frames)/per, float64(r.Bytes)/per/1000)
			}
		}
		fmt.Fprintf(out, " rows %.4g/s", float64(p.Rows)/p.Length.Seconds())
		if n := len(p.InStep); n > 0 {
			fmt.Fprintf(out, " in step %v…%v", p.InStep[0].Round(time.Millisecond), p.InStep[n-1].Round(time.Millisecond))
		}
		if n := len(p.Repaired); n > 0 {
			fmt.Fprintf(out, " repaired %d in p50 %v p99 %v", n, quantile(p.Repaired, 0.5).Round(time.Millisecond), quantile(p.Repaired, 0.99).Round(time.Millisecond))
		}
		fmt.Fprintln(out)
	}
}

// quantile returns the smallest of the values, which ascend, that q of them do not exceed;
// 0 if there are none.
func quantile(ascending []time.Duration, q float64) time.Duration {
	if len(ascending) == 0 {
		return 0
	}
	return ascending[min(len(ascending)-1, int(q*float64(len(ascending))))]
}

// split returns the words of a list, or those that stand for an empty one.
func split(list string, empty []string) []string {
	if list == "" {
		return empty
	}
	return strings.Split(list, ",")
}

// numbers is split for numbers.
func numbers(list string, empty []int) (numbers []int) {
	for _, word := range split(list, nil) {
		n, err := strconv.Atoi(word)
		if err != nil || n < 2 {
			fail(fmt.Errorf("-sizes %q: want numbers of 2 and more, with commas between them", list))
		}
		numbers = append(numbers, n)
	}
	if numbers == nil {
		return empty
	}
	return numbers
}
