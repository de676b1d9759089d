package transports

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/provider/awsbus"
	"github.com/carillon-go/carillon/provider/azurebus"
	"github.com/carillon-go/carillon/provider/kafkabus"
	"github.com/carillon-go/carillon/provider/mqttbus"
	"github.com/carillon-go/carillon/provider/natsbus"
	"github.com/carillon-go/carillon/provider/pgbus"
	"github.com/carillon-go/carillon/provider/rabbitbus"
	"github.com/carillon-go/carillon/provider/redisbus"
)

// Who reads the messages of a transport may have nothing but a settings file. What they tell to set is a key there, or else
// the message says before it that it is for code.
func TestMessages_TellToSetWhatIsInSettingsFiles(t *testing.T) {
	providers, err := filepath.Abs("../../../provider")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		folder   string
		sections []string
		configs  []any
	}{
		{"awsbus", []string{"aws"}, []any{awsbus.Config{}}},
		{"azurebus", []string{"azure"}, []any{azurebus.Config{}}},
		{"kafkabus", []string{"kafka"}, []any{kafkabus.Config{}}},
		{"mqttbus", []string{"mqtt"}, []any{mqttbus.Config{}}},
		{"natsbus", []string{"nats", "jetstream"}, []any{natsbus.Config{}, natsbus.JetStreamConfig{}}},
		{"pgbus", []string{"postgres"}, []any{pgbus.Config{}}},
		{"rabbitbus", []string{"rabbit"}, []any{rabbitbus.Config{}}},
		{"redisbus", []string{"redis", "redisstreams"}, []any{redisbus.Config{}}},
	} {
		var keys []string
		for _, section := range tt.sections {
			keys = append(keys, keysOf(t, section)...)
		}
		code := []string{"RootCAs", "ServerName"} // fields that no settings file has; these are of a tls.Config
		for _, c := range tt.configs {
			for _, f := range reflect.VisibleFields(reflect.TypeOf(c)) {
				if f.IsExported() && !f.Anonymous && !slices.Contains(keys, strings.ToLower(f.Name)) {
					code = append(code, f.Name)
				}
			}
		}
		if len(keys) < 3 || len(code) == 0 {
			t.Errorf("%s: the keys %q, and %q in code alone; there should be more", tt.folder, keys, code)
			continue
		}
		told := 0
		for _, text := range literals(t, filepath.Join(providers, tt.folder)) {
			for _, at := range mentions(text, code) {
				told++
				if !strings.Contains(text[:at[0]], "in code") {
					t.Errorf("%s: %q names %s, which is in no settings file; say before it that it is for code", tt.folder, text, text[at[0]:at[1]])
				}
			}
		}
		if told == 0 && slices.Contains([]string{"mqttbus", "natsbus", "redisbus"}, tt.folder) {
			t.Errorf("%s: no message names any of %q; is that so?", tt.folder, code)
		}
	}
}

// keysOf returns the keys that a transport asks its section for, in small letters.
func keysOf(t *testing.T, section string) (keys []string) {
	t.Helper()
	s := load(t, "", "Carillon__"+section+"__Zzz=1")
	_, err := Factories()[section](s.Section(section))
	if err == nil {
		t.Fatalf("%s takes any key", section)
	}
	_, choices, _ := strings.Cut(err.Error(), "keys here: ")
	for key := range strings.SplitSeq(choices, ", ") {
		keys = append(keys, strings.ToLower(key))
	}
	return keys
}

// literals returns the texts in a folder's files, but for those of tests, that may be a message: those with a space. Parts that
// are added up are one.
func literals(t *testing.T, folder string) (texts []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in %s: %v", folder, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			text, ok := literal(n)
			if !ok {
				return true
			}
			// What begins with a brace shows a Config to a programmer.
			if strings.Contains(text, " ") && !strings.HasPrefix(text, "{") {
				texts = append(texts, text)
			}
			return false
		})
	}
	return texts
}

func literal(n ast.Node) (text string, ok bool) {
	switch n := n.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(n.Value)
		return text, err == nil && n.Kind == token.STRING
	case *ast.BinaryExpr:
		left, isText := literal(n.X)
		right, ok := literal(n.Y)
		return left + right, ok && isText && n.Op == token.ADD
	}
	return "", false
}

var (
	word     = regexp.MustCompile(`\b[A-Z]\w*`)
	ordinary = []string{"AWS", "HTTP", "TLS"} // words that are also names of fields
	before   = regexp.MustCompile(`\b(set|give|leave) $`)
	after    = regexp.MustCompile(`^(\.\w| nil)`)
)

// mentions returns where text names one of the fields.
func mentions(text string, fields []string) (at [][]int) {
	for _, m := range word.FindAllStringIndex(text, -1) {
		name := text[m[0]:m[1]]
		if !slices.Contains(fields, name) {
			continue
		}
		if slices.Contains(ordinary, name) && !before.MatchString(text[:m[0]]) && !after.MatchString(text[m[1]:]) {
			continue
		}
		at = append(at, m)
	}
	return at
}
