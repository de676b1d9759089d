package sim

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Run "go test ./internal/sim -run Scenario -update" after a change that is meant
// to change what happens. Commit the rewritten files only if you understand
// every line that differs.
var update = flag.Bool("update", false, "rewrite what testdata expects")

const divider = "\n----\n"

// TestScenario_HappensAsWritten carries out the plans in testdata and compares what
// happens with what stands below the divider of the same file.
func TestScenario_HappensAsWritten(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			plan, want, _ := strings.Cut(string(text), divider)
			p, err := ParsePlan(plan)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			r := Run(p, &out)
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			fmt.Fprintln(&out, &r.Verdict)
			if *update {
				if err := os.WriteFile(name, []byte(plan+divider+out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got := out.String(); got != want {
				t.Errorf("what happened differs from line %d on; got\n%s\nwant\n%s", firstDifference(got, want), got, want)
			}
			if !r.Verdict.Holds() {
				t.Errorf("the promise was broken: %v", &r.Verdict)
			}
		})
	}
}

func firstDifference(a, b string) int {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range x {
		if i == len(y) || x[i] != y[i] {
			return i + 1
		}
	}
	return len(x)
}
