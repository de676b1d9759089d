package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// invocation returns what a person types to run this program again.
func invocation() string {
	self, err := os.Executable()
	if err != nil {
		return "carillon"
	}
	if byGoRun(self) {
		for _, dir := range []string{"cmd/carillon", "carillon"} {
			if _, err := os.Stat(filepath.Join(dir, "invocation.go")); err == nil {
				return "go run ./" + dir
			}
		}
		if _, err := os.Stat("invocation.go"); err == nil {
			return "go run ."
		}
		return "go run github.com/carillon-go/carillon/cmd/carillon"
	}
	if found, err := exec.LookPath("carillon"); err == nil && same(found, self) {
		return "carillon"
	}
	if strings.ContainsAny(os.Args[0], `/\`) {
		return os.Args[0] // as it was typed
	}
	return "carillon"
}

// byGoRun reports whether the go command made the executable for one run, so
// that it is gone afterwards.
func byGoRun(executable string) bool {
	for dir := filepath.Dir(executable); ; dir = filepath.Dir(dir) {
		if strings.HasPrefix(filepath.Base(dir), "go-build") {
			return true
		}
		if dir == filepath.Dir(dir) {
			return false
		}
	}
}

// same reports whether two paths lead to one file.
func same(a, b string) bool {
	fa, err := os.Stat(a)
	if err != nil {
		return false
	}
	fb, err := os.Stat(b)
	return err == nil && os.SameFile(fa, fb)
}
