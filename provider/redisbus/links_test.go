package redisbus

import (
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// An application that imports package carillon and this one links rueidis, and nothing of any other product.
func TestImports_NoOtherSDKIsLinked(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.Module.Path}}{{end}}",
		".", "github.com/carillon-go/carillon").Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := make(map[string]bool)
	for _, module := range strings.Fields(string(out)) {
		linked[module] = true
	}
	want := []string{
		"github.com/carillon-go/carillon", "github.com/carillon-go/carillon/provider/redisbus", "github.com/redis/rueidis", "golang.org/x/sys",
	}
	if got := slices.Sorted(maps.Keys(linked)); !slices.Equal(got, want) {
		t.Errorf("linked modules:\n%q, want\n%q", got, want)
	}
}
