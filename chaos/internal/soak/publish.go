//go:build linux

package soak

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Publish writes the graph and a summary into the documentation in folder.
func (r *Report) Publish(folder string) error {
	if err := os.MkdirAll(filepath.Join(folder, "images"), 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(folder, "images", "soak.svg"))
	if err != nil {
		return err
	}
	if err := r.Graph(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "soak.md"), []byte(r.Summary()), 0o644)
}

// Summary returns a page about the soak.
func (r *Report) Summary() string {
	v := &r.Verdict
	var b strings.Builder
	fmt.Fprintf(&b, `# Soak

%d real processes in network namespaces ran for %.4g minutes while faults came at random, one or two at a time. Then all faults ended, and what
every process had raised, heard and missed was judged by the checker that judges the simulation too.

`+"`make soak MINUTES=%.4g SEED=%d`"+`, on %s. The first %d instances were never killed, so that their lines show the whole time.

![Memory and goroutines of the processes](images/soak.svg)

| what | figure |
|---|---|
| violations | %d |
| events raised | %d |
| told as Raised | %d |
| told as Missed | %d%s |
| unknowable: events of killed processes that nobody had heard | %d |
| key rotations that came to their end | %d |
| packets carried; dropped, held back, duplicated, corrupted | %d; %d, %d, %d, %d |

`, r.Instances, r.Faulty.Minutes(), r.Faulty.Minutes(), r.Seed, r.Began.UTC().Format(time.DateOnly), r.Spared,
		r.Violations(), v.Raises, v.Raised, v.Missed, reasons(v.Reasons), v.Lost, r.Rotations,
		r.Network.Carried, r.Network.Dropped, r.Network.Reordered, r.Network.Duplicated, r.Network.Corrupted)
	b.WriteString("| process that was never killed | second quarter of the time | last quarter |\n|---|---|---|\n")
	for i := range r.Spared {
		for _, m := range measures() {
			early, late := r.median(i, earlyQuarter, m.value), r.median(i, lateQuarter, m.value)
			fmt.Fprintf(&b, "| %d: %s | %s | %s |\n", i, m.name, m.text(early), m.text(late))
		}
	}
	b.WriteString("\n| fault | times |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		fmt.Fprintf(&b, "| %s | %d |\n", name, r.Faults[name])
	}
	return b.String()
}

func reasons(by map[string]uint64) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(by)) {
		if by[name] > 0 {
			list = append(list, fmt.Sprintf("%s %d", name, by[name]))
		}
	}
	if list == nil {
		return ""
	}
	return " (" + strings.Join(list, ", ") + ")"
}
