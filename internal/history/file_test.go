package history

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestReadFile_ReturnsWhatWasWritten(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a")
	want := []Record{
		{At: 1, Instance: "a", Kind: Opening, Site: "shop", Accepts: []string{"*"}},
		{At: 2, Instance: "a", Kind: Raised, From: "b", Seq: 7, Stream: Stream{1, 2}, Ordinal: 7, Event: "e", Sum: 1 << 63},
		{At: 3, Instance: "a", Kind: Missed, First: 3, Last: 5, Count: 3, Exact: true, Reason: "timeout", Stream: Stream{1}},
	}
	for i := range want { // several Writers one after the other, as a restart would
		w, err := Append(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(&want[i]); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadFile(name)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ReadFile = %+v, %v; want %+v", got, err, want)
	}
}

func TestReadFile_LeavesOutATornLastLine(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a")
	whole := `{"t":1,"i":"a","k":"opening"}` + "\n"
	for torn := range whole {
		if err := os.WriteFile(name, []byte(whole+whole[:torn]), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadFile(name); err != nil || len(got) != 1 {
			t.Errorf("with %q at the end: %d records, %v; want 1", whole[:torn], len(got), err)
		}
	}
}

func TestReadFile_RefusesABrokenLineInTheMiddle(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(name, []byte("{\"t\":1}\n{\"t\"\n{\"t\":3}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(name); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("error %v, want one that names line 2", err)
	}
}

func TestMerge_OrdersByTimeAndKeepsEachFile(t *testing.T) {
	ms := time.Millisecond
	a := []Record{{At: 1 * ms, Seq: 1}, {At: 5 * ms, Seq: 2}, {At: 4 * ms, Seq: 3}} // a clock stepped back
	b := []Record{{At: 2 * ms, Seq: 4}, {At: 5 * ms, Seq: 5}}
	var got []uint64
	for _, r := range Merge(a, b) {
		got = append(got, r.Seq)
	}
	if want := []uint64{1, 4, 2, 3, 5}; !reflect.DeepEqual(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}
