package main

import (
	"io"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// FuzzArguments parses command lines, which never panics, and leaves what stands behind
// a lone "--" alone.
func FuzzArguments(f *testing.F) {
	for _, s := range []string{"", "help raise", "raise --param -1", "listen -site x", "demo --instances=3 --seconds -5", "secret rotate --dry-run", "raise -- -x --y", "version"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Fields(line)
		parsed := arguments(args)
		for i, a := range args {
			if a != "--" {
				continue
			}
			if i > 0 && args[0] == "help" {
				break // help comes last
			}
			tail := strings.Join(args[i:], " ")
			if !strings.HasSuffix(strings.Join(parsed, " "), tail) {
				t.Errorf("%q became %q", args, parsed)
			}
			break
		}
		defer func() {
			if p := recover(); p != nil {
				if _, ok := p.(quit); !ok {
					panic(p)
				}
			}
		}()
		var c cli
		parser, err := kong.New(&c, kong.Name("carillon"), variables(), kong.Writers(io.Discard, io.Discard), kong.Exit(func(code int) { panic(quit(code)) }))
		if err != nil {
			t.Fatal(err)
		}
		if oneHyphen(parser.Model, parsed) == nil {
			parser.Parse(parsed)
		}
	})
}
