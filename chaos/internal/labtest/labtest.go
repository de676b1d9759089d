//go:build linux

// Package labtest makes laboratories for tests.
package labtest

import (
	"os"
	"testing"

	"github.com/carillon-go/carillon/chaos/internal/lab"
)

// Need ends the test where there can be no laboratory: as a failure where nothing may be skipped.
func Need(t testing.TB) {
	t.Helper()
	err := lab.Check()
	if err == nil {
		return
	}
	if os.Getenv("CARILLON_NO_SKIP") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// New makes a laboratory that closes itself.
func New(t testing.TB, cfg lab.Config) *lab.Lab {
	t.Helper()
	Need(t)
	l, err := lab.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}
