package providertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// CheckNoSecret fails the test if one of values shows secret in one of the ways in which values come
// to be seen: printed with any verb, alone, by pointer and inside other values, logged as text and as JSON, or marshalled. Pass the
// configuration, the Provider, and the errors it returned. Of errors it wants one line.
func CheckNoSecret(tb testing.TB, secret string, values ...any) {
	tb.Helper()
	for _, v := range values {
		for _, shown := range ways(v) {
			if strings.Contains(shown, secret) {
				tb.Errorf("a %T shows the secret: %s", v, strings.ReplaceAll(shown, secret, "[the secret]"))
				break
			}
		}
		if err, ok := v.(error); ok && strings.Contains(strings.TrimSpace(err.Error()), "\n") {
			tb.Errorf("an error has several lines: %q", err)
		}
	}
}

// ways returns v as people get to see it.
func ways(v any) []string {
	var shown []string
	for _, form := range []any{v, &v, []any{v}, map[string]any{"key": v}, struct{ V any }{v}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			shown = append(shown, fmt.Sprintf(verb, form))
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("text", "value", form)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "value", form)
		shown = append(shown, log.String())
		if b, err := json.Marshal(form); err == nil {
			shown = append(shown, string(b))
		}
	}
	return shown
}
