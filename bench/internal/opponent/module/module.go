// Package module tells which version of a library is linked.
package module

import (
	"runtime/debug"
	"strings"
)

// Version returns the version of a module that is linked into this program, without the v; of one that is
// not, or in a program without build information, a question mark.
func Version(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "?"
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return strings.TrimPrefix(m.Version, "v")
		}
	}
	return "?"
}
