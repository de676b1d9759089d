package main

import (
	"fmt"
	"os"
	"strings"
)

// writeTable writes what became of the mutants.
func writeTable(file string, mutants []mutant, results []result) error {
	var b strings.Builder
	n := 0
	for _, r := range results {
		if r.fate == killed {
			n++
		}
	}
	b.WriteString(`# Mutants

<!-- Written by tools/mutants; make mutants MD=1 writes it anew. -->

Each line is one mechanism, broken by hand, and the test that then fails. A test that cannot fail proves nothing, so a
mechanism without a line here is one that nobody is known to watch. The changes stand in ` + "`tools/mutants/list/`" + `;
` + "`make mutants`" + ` makes each of them in a copy of one file, runs the tests named beside it, and wants one to fail. A
mutant that does not apply any more, or does not compile, is an error and not a success.

`)
	fmt.Fprintf(&b, "%d mutants, %d killed.\n", len(mutants), n)
	area := ""
	for i, m := range mutants {
		if m.area != area || i == 0 {
			area = m.area
			fmt.Fprintf(&b, "\n## %s\n\n| mutant | what it breaks | killed by |\n| --- | --- | --- |\n", area)
		}
		by := fmt.Sprintf("**%v**", results[i].fate)
		if results[i].fate == killed {
			by = "`" + results[i].by + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", cell(m.name), cell(m.breaks), by)
	}
	return os.WriteFile(file, []byte(b.String()), 0o644)
}

// cell makes text safe inside a table.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
