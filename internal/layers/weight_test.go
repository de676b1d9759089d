package layers

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// weight lists the modules, by the beginnings of their paths, that an application links because it imports package
// carillon and the provider of this folder. golang.org/x and our own are not listed.
var weight = map[string][]string{
	"awsbus": {"github.com/aws/aws-sdk-go-v2", "github.com/aws/smithy-go"},
	"azurebus": {
		"github.com/Azure/azure-sdk-for-go/sdk/azcore", "github.com/Azure/azure-sdk-for-go/sdk/internal",
		"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus", "github.com/Azure/go-amqp",
	},
	"mqttbus": {"github.com/eclipse/paho.golang"},
	"natsbus": {
		"github.com/klauspost/compress", // of nats.go, for WebSocket
		"github.com/nats-io/nats.go", "github.com/nats-io/nkeys", "github.com/nats-io/nuid",
	},
	"pgbus": {
		"github.com/jackc/pgpassfile", "github.com/jackc/pgservicefile", "github.com/jackc/pgx/v5", "github.com/jackc/puddle/v2",
	},
	"rabbitbus": {"github.com/rabbitmq/amqp091-go"},
	"redisbus":  {"github.com/redis/rueidis"},
}

// Whoever takes one transport shall not carry the SDKs of the others.
func TestProviders_LinkTheirOwnSDKAndNothingElse(t *testing.T) {
	const root = "github.com/carillon-go/carillon"
	modules, err := filepath.Glob("../../provider/*/go.mod")
	if err != nil || len(modules) == 0 {
		t.Fatalf("modules of providers: %q, %v", modules, err)
	}
	for _, file := range modules {
		name := filepath.Base(filepath.Dir(file))
		t.Run(name, func(t *testing.T) {
			expected, ok := weight[name]
			if !ok {
				t.Fatal("the table of this test does not say what the provider links")
			}
			cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", root, root+"/provider/"+name)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("go list: %v", err)
			}
			linked := strings.Fields(string(out))
			slices.Sort(linked)
			linked = slices.Compact(linked)
			for _, module := range linked {
				ours := module == root || module == root+"/provider/"+name || strings.HasPrefix(module, "golang.org/x/")
				if !ours && !slices.ContainsFunc(expected, within(module)) {
					t.Errorf("an application that uses it links %s", module)
				}
			}
			for _, prefix := range expected {
				if !slices.ContainsFunc(linked, func(module string) bool { return within(module)(prefix) }) {
					t.Errorf("the table lists %s, which is not linked", prefix)
				}
			}
		})
	}
}

// within returns a function that reports whether module is the one named by a prefix, or below it.
func within(module string) func(prefix string) bool {
	return func(prefix string) bool { return module == prefix || strings.HasPrefix(module, prefix+"/") }
}
