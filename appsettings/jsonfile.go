package appsettings

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tailscale/hujson"
)

// maxDepth bounds how deep values may nest. The parser calls itself for every
// level.
const maxDepth = 64

// readJSON returns what a settings file says about the sections that are ours.
func readJSON(source string, data []byte, ps *problems) (own, legacy entries) {
	own, legacy = entries{}, entries{}
	data = trimBOM(data)
	if len(bytes.TrimSpace(data)) == 0 {
		return own, legacy // created and not yet filled in
	}
	if line := tooDeep(data); line > 0 {
		ps.add(origin{source, line}, "", "values nest deeper than %d levels", maxDepth)
		return own, legacy
	}
	root, err := hujson.Parse(data)
	if err != nil {
		line, text := parseError(err)
		ps.add(origin{source, line}, "", "not valid JSON: %s", text)
		return own, legacy
	}
	if _, ok := root.Value.(*hujson.Object); !ok {
		ps.add(origin{source, 1}, "", "not a settings file: want an object { … } with sections")
		return own, legacy
	}
	r := jsonReader{source: source, data: data, lines: lineStarts(data), own: own, legacy: legacy, ps: ps}
	r.walk("", "", root)
	return own, legacy
}

type jsonReader struct {
	source      string
	data        []byte
	lines       []int
	own, legacy entries
	ps          *problems
}

// walk notes v and all below it. list is the folded path of the list that v is
// an element of, or "".
func (r *jsonReader) walk(path, list string, v hujson.Value) {
	if path != "" && !mayHoldOurs(fold(path)) {
		return
	}
	if _, single := v.Value.(hujson.Literal); !single && fold(path) == legacyProvider {
		r.note(entry{path: path, kind: emptyTable}, v) // whatever is in it, it is not a name
		return
	}
	switch x := v.Value.(type) {
	case *hujson.Object:
		if len(x.Members) == 0 {
			r.note(entry{path: path, kind: emptyTable, list: list}, v)
		}
		for _, m := range x.Members {
			name := m.Name.Value.(hujson.Literal).String()
			if name == "" {
				continue // cannot be asked for, in .NET neither
			}
			r.walk(join(path, name), list, hujson.Value{Value: m.Value.Value, StartOffset: m.Name.StartOffset})
		}
	case *hujson.Array:
		if len(x.Elements) == 0 {
			r.note(entry{path: path, kind: emptyList, list: fold(path)}, v)
		}
		for i, elem := range x.Elements {
			r.walk(join(path, strconv.Itoa(i)), fold(path), elem)
		}
	case hujson.Literal:
		if x.Kind() == 'n' {
			r.note(entry{path: path, kind: null, list: list}, v)
			return
		}
		r.note(entry{path: path, kind: scalar, text: x.String(), list: list}, v)
	}
}

func (r *jsonReader) note(e entry, v hujson.Value) {
	e.at = origin{r.source, lineAt(r.lines, v.StartOffset)}
	switch path := fold(e.path); {
	case isOwn(path):
		insert(r.own, e, r.ps)
	case path == legacyProvider:
		insert(r.legacy, e, r.ps)
	}
}

// maxKeys bounds what one source may say about us. Laying one source over another
// compares each with each.
const maxKeys = 1000

// insert adds e to the entries of one source, where each path may stand once.
func insert(es entries, e entry, ps *problems) {
	path := fold(e.path)
	if len(es) >= maxKeys {
		text := fmt.Sprintf("has more than %d keys of Carillon; the others were not read", maxKeys)
		if n := len(ps.list); n == 0 || ps.list[n-1].Text != text {
			ps.add(origin{source: e.at.source}, "", "%s", text)
		}
		return
	}
	if first, ok := es[path]; ok {
		where := "also " + first.at.source
		if first.at.line > 0 {
			where = fmt.Sprintf("also in line %d", first.at.line)
		}
		ps.add(e.at, e.path, "is set twice, %s; keep one (keys that differ only in case are the same key)", where)
		return
	}
	es[path] = e
}

const (
	ownSection     = "carillon"
	legacyProvider = "episerver:cms:eventprovider:provider"
)

// isOwn reports whether a folded path lies in our section.
func isOwn(path string) bool { return within(path, ownSection) }

// mayHoldOurs reports whether something of ours may lie at a folded path or
// below it.
func mayHoldOurs(path string) bool { return isOwn(path) || within(legacyProvider, path) }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + ":" + name
}

func trimBOM(data []byte) []byte { return bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) }

// tooDeep returns the line in which brackets nest deeper than maxDepth, or 0. It
// steps over strings and comments as the parser does.
func tooDeep(data []byte) int {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			for i++; i < len(data) && data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
		case bytes.HasPrefix(data[i:], []byte("//")):
			end := bytes.IndexByte(data[i:], '\n')
			if end < 0 {
				return 0
			}
			i += end
		case bytes.HasPrefix(data[i:], []byte("/*")):
			end := bytes.Index(data[i+2:], []byte("*/"))
			if end < 0 {
				return 0
			}
			i += 2 + end + 1
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return 1 + bytes.Count(data[:i], []byte("\n"))
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return 0
}

// parseError takes the line out of the parser's message, so that it is said
// once, and values out of it altogether.
func parseError(err error) (line int, text string) {
	text = strings.TrimPrefix(err.Error(), "hujson: ")
	var column int
	if n, _ := fmt.Sscanf(text, "line %d, column %d:", &line, &column); n == 2 {
		if _, rest, ok := strings.Cut(text, ": "); ok {
			text = rest
		}
	}
	if strings.HasPrefix(text, "invalid literal: ") {
		// The parser goes on with the value, and that may be a password.
		text = `a value is neither a text, a number, true, false nor null; within a text a backslash is written twice: \\`
	}
	return line, text
}

// lineStarts returns the offset of the first byte of every line.
func lineStarts(data []byte) []int {
	starts := []int{0}
	for i, c := range data {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// lineAt returns the number of the line that holds the byte at offset.
func lineAt(starts []int, offset int) int {
	line, found := slices.BinarySearch(starts, offset)
	if found {
		line++
	}
	return line
}
