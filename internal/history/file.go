package history

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
)

// A Writer appends records to a file, one JSON object a line and one system call
// a record, so that whatever was written outlives kill -9 of the process. It is
// safe for concurrent use.
type Writer struct {
	mu sync.Mutex
	f  *os.File
}

// Append opens the file for a Writer, and makes it if there is none.
func Append(name string) (*Writer, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return &Writer{f: f}, nil
}

// Write appends r.
func (w *Writer) Write(r *Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("history: write a record of %s: %w", r.Kind, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.f.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("history: write a record of %s: %w", r.Kind, err)
	}
	return nil
}

// Close closes the file.
func (w *Writer) Close() error { return w.f.Close() }

// ReadFile reads what a Writer wrote. A last line that is not whole, because its
// process was killed or the disk was full, is left out.
func ReadFile(name string) ([]Record, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	defer f.Close()
	records, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("history: read %s: %w", name, err)
	}
	return records, nil
}

// Read is [ReadFile] for what is open already.
func Read(r io.Reader) ([]Record, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var records []Record
	for n := 1; len(text) > 0; n++ {
		line, rest, whole := bytes.Cut(text, []byte{'\n'})
		if text = rest; !whole {
			break
		}
		var rec Record
		if err := json.Unmarshal(line, &rec); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		records = append(records, rec)
	}
	return records, nil
}

// Merge puts the records of several files into one history, by time. Records of
// one file stay in their order.
func Merge(files ...[]Record) []Record {
	var all []Record
	for _, f := range files {
		// A clock that steps back must not turn what one process did around.
		for i := 1; i < len(f); i++ {
			f[i].At = max(f[i].At, f[i-1].At)
		}
		all = append(all, f...)
	}
	slices.SortStableFunc(all, func(a, b Record) int { return cmp.Compare(a.At, b.At) })
	return all
}
