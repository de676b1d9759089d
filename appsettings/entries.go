package appsettings

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// An origin is where something was read.
type origin struct {
	source string
	line   int // 0: unknown, or not a file
}

// A kind is what stands at a path.
type kind uint8

const (
	_          kind = iota
	scalar          // a text, a number or a boolean, as text
	null            // JSON's null: as if the key had not been written, here or in a lower source
	emptyList       // []
	emptyTable      // {}
)

// An entry is a value at a path such as "Carillon:Udp:Port". Elements of lists
// are at paths that end in their index, as .NET has it.
type entry struct {
	path string // as it was written
	kind kind
	text string
	at   origin
	// list: this entry, or the list it is an element of, was written as a whole,
	// so it replaces the whole list of a lower source.
	list string // folded path of the list, or ""
}

// entries are the values of one source, or of several merged ones, by folded
// path.
type entries map[string]entry

// fold returns s in the form in which keys are compared.
func fold(s string) string { return strings.ToLower(s) }

// merge lays what a higher source says over e.
func (e entries) merge(higher entries) {
	// What is replaced as a whole goes first: a shorter list in a higher source
	// must not keep the tail of the longer one.
	for path, h := range higher {
		switch {
		case h.list != "":
			e.remove(h.list)
		case h.kind == scalar || h.kind == null:
			if !isElement(path) {
				e.remove(path)
			}
		}
	}
	for path, h := range higher {
		if h.kind != null {
			e[path] = h
		}
	}
}

// remove forgets what stands at path and below.
func (e entries) remove(path string) {
	maps.DeleteFunc(e, func(p string, _ entry) bool { return within(p, path) })
}

// within reports whether path is section or lies below it. Both are folded.
func within(path, section string) bool {
	return strings.HasPrefix(path, section) && (len(path) == len(section) || path[len(section)] == ':')
}

// sorted returns the folded paths in an order that does not change.
func (e entries) sorted() []string { return slices.Sorted(maps.Keys(e)) }

// elements returns the elements of the list at path, which is folded, in order:
// those of a text with commas, overlaid with those at an index.
func (e entries) elements(path string) []entry {
	var list []entry
	if whole, ok := e[path]; ok && whole.kind == scalar {
		for text := range strings.SplitSeq(whole.text, ",") {
			if text = strings.TrimSpace(text); text != "" {
				part := whole
				part.text = text
				list = append(list, part)
			}
		}
	}
	type indexed struct {
		index int
		entry entry
	}
	var single []indexed
	for p, x := range e {
		if parent, last := split(p); parent == path && x.kind == scalar {
			if i, err := strconv.Atoi(last); err == nil {
				single = append(single, indexed{i, x})
			}
		}
	}
	slices.SortFunc(single, func(a, b indexed) int { return a.index - b.index })
	for _, x := range single {
		if x.index < len(list) {
			list[x.index] = x.entry
		} else {
			list = append(list, x.entry)
		}
	}
	return list
}

// split cuts the last segment off a path.
func split(path string) (parent, last string) {
	i := strings.LastIndexByte(path, ':')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// isElement reports whether path ends in the index of a list element.
func isElement(path string) bool {
	_, last := split(path)
	return last != "" && len(last) <= 4 && strings.Trim(last, "0123456789") == ""
}
