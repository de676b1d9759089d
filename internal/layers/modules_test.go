package layers

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A module that go.work does not name is built and tested by nobody.
func TestModules_AreAllInTheWorkspace(t *testing.T) {
	b, err := os.ReadFile("../../go.work")
	if err != nil {
		t.Fatal(err)
	}
	var used []string
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "//")
		for field := range strings.FieldsSeq(line) {
			if field == "." || strings.HasPrefix(field, "./") {
				used = append(used, filepath.ToSlash(filepath.Clean(field)))
			}
		}
	}
	for _, dir := range read(t).modules {
		if dir == "tools" { // outside, so that its dependencies select no version of ours
			if slices.Contains(used, dir) {
				t.Errorf("go.work uses %s, which must stay outside", dir)
			}
			continue
		}
		if !slices.Contains(used, dir) {
			t.Errorf("go.work does not use ./%s", dir)
		}
	}
}
