package seal

import (
	"bytes"
	"testing"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// FuzzOpen asserts that nothing opens but what was sealed, and that no frame is
// changed by trying. Its workers are processes of their own and must agree on
// what was sealed, so frames whose seal holds random bytes come from files.
func FuzzOpen(f *testing.F) {
	var keys []site.Key
	genuine := map[string]bool{}
	add := func(frame []byte) {
		genuine[string(frame)] = true
		f.Add(frame)
	}
	for _, g := range golden {
		keys = append(keys, g.siteKey(f))
		add(readHex(f, g.name))
	}
	s := newSealer(f, keys[0])
	add(control(s, keys[0], 1))
	for i, payload := range []string{"", "x", "a longer payload than the others"} {
		add(sealed(f, s, keys[0], uint64(i+1), []byte(payload)))
	}
	o := newOpener(ringOf(keys...))
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := bytes.Clone(frame)
		try := func(s site.ID, k site.KeyID, stream site.StreamID) {
			body, err := o.Open(s, k, stream, frame)
			if (err == nil) != (body != nil) {
				t.Errorf("body %x with error %v", body, err)
			}
			if err == nil && !genuine[string(frame)] {
				t.Errorf("opened %x", frame)
			}
			o.OpenTrusting(s, k, stream, frame)
			if !bytes.Equal(frame, before) {
				t.Errorf("the frame was changed from %x to %x", before, frame)
			}
		}
		for _, key := range keys {
			try(testSite, key.ID, testStream)
		}
		if h, err := wire.ParseHeader(frame); err == nil {
			try(h.Site, h.Key, h.Stream)
		}
	})
}
