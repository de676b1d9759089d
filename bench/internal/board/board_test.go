//go:build linux

package board_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/carillon-go/carillon/bench/internal/board"
)

func TestBoard_IsTheSameMemoryForAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "board")
	a, err := board.Create(path, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := board.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if n := len(b.Subscribers()); n != 2 {
		t.Fatalf("%d subscribers, want 2", n)
	}
	b.Publisher().Events.Store(1)
	b.Subscribers()[0].Events.Store(7)
	b.Subscribers()[1].Events.Store(5)
	b.Subscribers()[1].FinishedAt.Store(-9)
	if a.Publisher().Events.Load() != 1 || a.Subscribers()[0].Events.Load() != 7 || a.Subscribers()[1].FinishedAt.Load() != -9 {
		t.Error("what one mapping holds, the other does not")
	}
	if got := a.Slowest(); got != 5 {
		t.Errorf("the slowest has %d, want 5", got)
	}
}

func TestBoard_RefusesWhatIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "board")
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := board.Open(path); err == nil {
		t.Error("a file of 5 bytes was taken for a board")
	}
	if _, err := board.Create(path, 1); err == nil {
		t.Error("a file that was there was taken over")
	}
}
