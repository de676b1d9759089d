package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

var (
	longFlag = regexp.MustCompile(`^--[a-z-]+$`)
	negative = regexp.MustCompile(`^-[0-9]+$`)
	oneDash  = regexp.MustCompile(`^-([a-z][a-z-]+)(=.*)?$`)
)

// arguments returns the command line as the parser understands it: help is a
// flag, and a negative number behind a flag is its value.
func arguments(args []string) []string {
	switch {
	case len(args) == 0:
		return []string{"--help"}
	case args[0] == "help":
		return append(slices.Clone(args[1:]), "--help")
	}
	var out []string
	for i := 0; i < len(args); i++ {
		if args[i] == "--" {
			return append(out, args[i:]...)
		}
		if i+1 < len(args) && longFlag.MatchString(args[i]) && negative.MatchString(args[i+1]) {
			out = append(out, args[i]+"="+args[i+1])
			i++
			continue
		}
		out = append(out, args[i])
	}
	return out
}

// oneHyphen returns the problem with the first flag that lacks its second hyphen; nil
// if none does.
func oneHyphen(app *kong.Application, args []string) error {
	known := map[string]bool{}
	nodes := []*kong.Node{app.Node}
	for len(nodes) > 0 {
		n := nodes[0]
		nodes = append(nodes[1:], n.Children...)
		for _, f := range n.Flags {
			known[f.Name] = true
		}
	}
	for _, a := range args {
		if a == "--" {
			return nil
		}
		if m := oneDash.FindStringSubmatch(a); m != nil && known[m[1]] {
			return &problem{exitUsage, fmt.Errorf("there is no flag -%s", m[1]), fmt.Sprintf("did you mean --%s? flags have two hyphens", m[1])}
		}
	}
	return nil
}

// usageHint says whose help has the flags.
func usageHint(err error) string {
	if p, ok := errors.AsType[*kong.ParseError](err); ok && p.Context != nil {
		if n := p.Context.Selected(); n != nil && !n.Hidden {
			return fmt.Sprintf("its flags: %s %s --help", invocation(), strings.TrimPrefix(n.FullPath(), "carillon "))
		}
	}
	return fmt.Sprintf("the commands: %s --help; the flags of one: %[1]s COMMAND --help", invocation())
}
