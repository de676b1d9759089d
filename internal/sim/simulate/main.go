// Command simulate runs seeds of package sim, and shows what happens in one.
//
//	simulate -seeds 10000            many seeds; exit status 1 if one fails
//	simulate -seed 42                one seed, with everything that happened
//	simulate -seed 42 -shrink        the smallest plan that fails as seed 42 does
//	simulate -plan FILE              a plan from a file
//	simulate -figures                what is missed at which loss
//	simulate -growth                 what sites of 2 to 1,000 instances cost
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/carillon-go/carillon/internal/sim"
)

func main() {
	seeds := flag.Uint64("seeds", 0, "run `N` seeds")
	from := flag.Uint64("from", 1, "the first `seed`")
	seed := flag.Uint64("seed", 0, "run one `seed` and print what happens")
	file := flag.String("plan", "", "run the plan in a `file` and print what happens")
	frames := flag.Bool("frames", false, "print every frame too")
	shrink := flag.Bool("shrink", false, "print the smallest plan that fails in the same way")
	quiet := flag.Bool("quiet", false, "no progress")
	workers := flag.Int("workers", runtime.GOMAXPROCS(0), "run so `many` seeds, or sites, at once")
	figures := flag.Bool("figures", false, "print what is missed at which loss, and how fast")
	events := flag.Int("events", 1_000_000, "raise `so many` events at each loss")
	grow := flag.Bool("growth", false, "print what sites of 2 to 1000 instances cost")
	sizes := flag.String("sizes", "", "only sites of so `many` instances, with commas between them")
	networks := flag.String("networks", "", "only on these `networks`, with commas between them")
	publish := flag.String("publish", "", "write what sites cost into the documentation in this `folder`")
	flag.Parse()
	debug.SetGCPercent(400)

	switch {
	case *seeds > 0:
		many := &many{from: *from, seeds: *seeds, workers: *workers, out: os.Stdout, progress: !*quiet}
		os.Exit(many.run())
	case *grow:
		debug.SetGCPercent(100) // a site of 1,000 fills some gigabytes
		g := &grower{networks: split(*networks, sim.GrowthNetworks()), sizes: numbers(*sizes, sim.GrowthSizes()), workers: *workers, out: os.Stdout}
		if !*quiet {
			g.progress = os.Stderr
		}
		os.Exit(g.run(*publish))
	case *figures:
		os.Exit(print(os.Stdout, *events))
	case *file != "":
		text, err := os.ReadFile(*file)
		if err != nil {
			fail(err)
		}
		plan, err := sim.ParsePlan(string(text))
		if err != nil {
			fail(err)
		}
		os.Exit(show(os.Stdout, plan, *frames, *shrink))
	case *seed > 0:
		os.Exit(show(os.Stdout, sim.Generate(*seed), *frames, *shrink))
	}
	flag.Usage()
	os.Exit(2)
}

// print prints the figures.
func print(out io.Writer, events int) int {
	if !sim.Figures(out, events) {
		return 1
	}
	return 0
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "simulate:", err)
	os.Exit(2)
}

// show runs one plan in front of a person.
func show(out io.Writer, plan *sim.Plan, frames, shrink bool) int {
	if shrink {
		plan = sim.Shrink(plan, 3000)
	}
	fmt.Fprint(out, plan, "\n")
	if frames {
		plan.TraceFrames()
	}
	r := sim.Run(plan, out)
	fmt.Fprintf(out, "\n%v\n%+v\nhash %016x\n", &r.Verdict, r.Stats, r.Hash)
	if r.Err != nil {
		fmt.Fprintln(out, r.Err)
	}
	if !r.Holds() {
		return 1
	}
	return 0
}
