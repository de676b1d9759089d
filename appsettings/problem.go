package appsettings

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Problem is one thing that is wrong in the configuration.
type Problem struct {
	Source string // the file, or the environment variable; empty when something is missing everywhere
	Line   int    // in a file; 0 where it is not known
	Key    string // "Carillon:Udp:Port", or an element of web.config; empty when the source as a whole is wrong
	Text   string // what is wrong, and what would be right
}

// String returns the problem on one line: where, which key, what.
func (p Problem) String() string { return place(p.Source, p.Line, p.Key, p.Text) }

// variableSource is what [Problem.Source] begins with where it is an environment variable.
const variableSource = "environment variable "

// Variable returns the name of the environment variable that is wrong, or "" if it is none.
func (p Problem) Variable() string {
	if name, ok := strings.CutPrefix(p.Source, variableSource); ok {
		return name
	}
	return ""
}

// A Notice is a remark on the configuration. Nothing is wrong, but something
// may be other than its author expects.
type Notice struct {
	Source string
	Line   int
	Key    string
	Text   string
}

// String returns the notice on one line: where, which key, what.
func (n Notice) String() string { return place(n.Source, n.Line, n.Key, n.Text) }

func place(source string, line int, key, text string) string {
	var b strings.Builder
	if source != "" {
		b.WriteString(source)
		if line > 0 {
			fmt.Fprintf(&b, ":%d", line)
		}
		b.WriteString(": ")
	}
	if key != "" {
		b.WriteString(key + ": ")
	}
	return b.String() + text
}

// maxShown bounds the length of an error. A file of another kind under the name
// of ours would otherwise fill the screen.
const maxShown = 100

// An Error says everything that is wrong in the configuration.
type Error struct {
	Problems []Problem // at least one, in the order in which sources are read, then by line
}

// Error returns one line for a single problem, and otherwise a line for each.
func (e *Error) Error() string {
	if len(e.Problems) == 1 {
		return "configuration: " + e.Problems[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "configuration: %d problems", len(e.Problems))
	for i, p := range e.Problems {
		if i == maxShown {
			fmt.Fprintf(&b, "\n\tand %d more", len(e.Problems)-maxShown)
			break
		}
		b.WriteString("\n\t" + p.String())
	}
	return b.String()
}

// problems collects. Its zero value is ready.
type problems struct {
	list    []Problem
	sources []string // in the order in which they were first named
}

// source gives a source its place in the order of problems.
func (ps *problems) source(name string) {
	if !slices.Contains(ps.sources, name) {
		ps.sources = append(ps.sources, name)
	}
}

func (ps *problems) add(at origin, key, format string, args ...any) {
	ps.source(at.source)
	ps.list = append(ps.list, Problem{Source: at.source, Line: at.line, Key: key, Text: fmt.Sprintf(format, args...)})
}

// err returns what was collected as an error, or nil.
func (ps *problems) err() error {
	if len(ps.list) == 0 {
		return nil
	}
	slices.SortStableFunc(ps.list, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(slices.Index(ps.sources, a.Source), slices.Index(ps.sources, b.Source)),
			cmp.Compare(a.Line, b.Line),
			strings.Compare(a.Key, b.Key),
		)
	})
	return &Error{Problems: ps.list}
}

// choose returns `did you mean "x"? choices: a, b` for a word that is none of the
// choices. Each half is left out where it has nothing to say.
func choose(word string, choices []string) string {
	var halves []string
	if near := nearest(word, choices); near != "" {
		halves = append(halves, fmt.Sprintf("did you mean %q?", near))
	}
	if len(choices) > 0 {
		halves = append(halves, "choices: "+strings.Join(choices, ", "))
	}
	return strings.Join(halves, " ")
}

// nearest returns the choice that word most likely is a misspelling of, or "".
func nearest(word string, choices []string) string {
	const longest = 64 // of what a person may have typed; comparing costs the square of it
	if len(word) > longest {
		return ""
	}
	best, least := "", 1+max(1, len(word)/3)
	for _, c := range choices {
		if d := distance(fold(word), fold(c)); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to turn a into b (optimal string alignment).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			replace := rows[i-1][j-1]
			if x[i-1] != y[j-1] {
				replace++
			}
			rows[i][j] = min(replace, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(x)][len(y)]
}
