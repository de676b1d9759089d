package history

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// FuzzRead reads a history that anybody may have written, and judges it. Whatever it
// says, it is an error or a verdict, and what was read can be written and read again.
func FuzzRead(f *testing.F) {
	f.Add([]byte("{\"t\":1,\"i\":\"a\",\"k\":\"opening\"}\n{\"t\":2,\"i\":\"a\",\"k\":\"opened\"}\n{\"t\":3,\"i\":\"a\",\"k\":\"raise\"}\n{\"t\":9,\"k\":\"end\"}\n"))
	f.Add([]byte("{\"t\":5,\"i\":\"b\",\"k\":\"missed\",\"stream\":\"00000000-0000-0001-0000-000000000002\",\"First\":1,\"Last\":4,\"n\":4,\"exact\":true}\n"))
	f.Add([]byte("{\"t\":-1,\"k\":\"sent\",\"n\":3,\"ord\":18446744073709551615}\nnot json\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		records, err := Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		var again bytes.Buffer
		for _, r := range records {
			line, err := json.Marshal(&r)
			if err != nil {
				t.Fatal(err)
			}
			again.Write(append(line, '\n'))
		}
		back, err := Read(&again)
		if err != nil || len(back) != len(records) {
			t.Fatalf("%d records were written, %d read: %v", len(records), len(back), err)
		}
		for i := range back {
			if a, b := normal(back[i]), normal(records[i]); !reflect.DeepEqual(a, b) {
				t.Errorf("record %+v was read back as %+v", b, a)
			}
		}
		for i := range records {
			r := &records[i]
			if r.Count > 1e4 || r.Last-r.First > 1e4 || r.Seq > 1e4 || r.Ordinal > 1e4 {
				return // a history is the size of what it tells of, and so is the work
			}
		}
		Check(records, time.Second)
	})
}

// normal returns r without the difference between no list and an empty one.
func normal(r Record) Record {
	if len(r.Accepts) == 0 {
		r.Accepts = nil
	}
	return r
}
