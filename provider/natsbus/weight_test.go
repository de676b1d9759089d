package natsbus

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Whoever takes one transport shall not carry the SDKs of the others, nor the server that the tests start.
func TestPackage_LinksTheClientOfNATSAndNothingElse(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}",
		"github.com/carillon-go/carillon", "github.com/carillon-go/carillon/provider/natsbus")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	linked := strings.Fields(string(out))
	slices.Sort(linked)
	if !slices.Contains(linked, "github.com/nats-io/nats.go") {
		t.Fatalf("go list names %q", linked)
	}
	expected := []string{
		"github.com/carillon-go/carillon",
		"github.com/carillon-go/carillon/provider/natsbus",
		"github.com/klauspost/compress", // of nats.go, for WebSocket
		"github.com/nats-io/nats.go",
		"github.com/nats-io/nkeys",
		"github.com/nats-io/nuid",
	}
	for _, module := range slices.Compact(linked) {
		if !slices.Contains(expected, module) && !strings.HasPrefix(module, "golang.org/x/") {
			t.Errorf("an application that uses natsbus links %s", module)
		}
	}
}
