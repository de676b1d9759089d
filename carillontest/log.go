package carillontest

import (
	"io"
	"log/slog"
	"testing"
)

// logger returns a Logger that writes to the log of t.
func logger(t testing.TB, i int) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(writer(t), &slog.HandlerOptions{Level: slog.LevelDebug})).With("instance", i)
}

func writer(t testing.TB) io.Writer { return t.Output() }
