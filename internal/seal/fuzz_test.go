package seal

import (
	"bytes"
	"testing"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// FuzzOpen asserts that nothing opens but what was sealed, and that no frame is
// changed by trying.
func FuzzOpen(f *testing.F) {
	keys := []site.Key{testKey(f, 3, site.SuiteHMACSHA256), testKey(f, 4, site.SuiteAES256GCM)}
	o := newOpener(ringOf(keys...))
	genuine := map[string]bool{}
	for _, key := range keys {
		s := newSealer(f, key)
		for i, payload := range []string{"", "x", "a longer payload than the others"} {
			frame := sealed(f, s, key, uint64(i+1), []byte(payload))
			genuine[string(frame)] = true
			f.Add(frame)
		}
		frame := control(s, key, 1)
		genuine[string(frame)] = true
		f.Add(frame)
	}
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
