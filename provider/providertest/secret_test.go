package providertest

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
)

// noted keeps errors that a check reports.
type noted struct {
	testing.TB
	errors []string
}

func (n *noted) Helper() {}
func (n *noted) Errorf(format string, args ...any) {
	n.errors = append(n.errors, fmt.Sprintf(format, args...))
}

// covered shows its secret nowhere.
type covered struct{ secret string }

func (covered) Format(f fmt.State, _ rune)   { io.WriteString(f, "covered") }
func (covered) LogValue() slog.Value         { return slog.StringValue("covered") }
func (covered) MarshalText() ([]byte, error) { return []byte("covered"), nil }

// printed shows its secret when it is marshalled only.
type printed struct{ Secret string }

func (printed) Format(f fmt.State, _ rune) { io.WriteString(f, "printed") }

func TestCheckNoSecret_FindsEveryWayOut(t *testing.T) {
	for _, tt := range []struct {
		name  string
		value any
		want  int // errors
	}{
		{"covered", covered{"s3cr3t"}, 0},
		{"bare", struct{ password string }{"s3cr3t"}, 1},
		{"marshalled", printed{"s3cr3t"}, 1},
		{"an error", fmt.Errorf("dial %q", "u:s3cr3t@h"), 1},
		{"an error of two lines", errors.New("a\nb"), 1},
		{"an error of one", errors.New("wrong password"), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &noted{TB: t}
			CheckNoSecret(n, "s3cr3t", tt.value)
			if len(n.errors) != tt.want {
				t.Errorf("reported %q, want %d", n.errors, tt.want)
			}
		})
	}
}
