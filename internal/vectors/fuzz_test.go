package vectors

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"
)

// FuzzBothDecoders looks for a frame that one decoder takes and the other does not, or
// takes for something else. The seeds are the published frames.
func FuzzBothDecoders(f *testing.F) {
	list, err := Read(published)
	if err != nil {
		f.Fatal(err)
	}
	for _, v := range list {
		if b := v.Bytes(); v.Kind == "frame" && len(b) < 4096 {
			f.Add(b, false)
			f.Add(b, true)
		}
	}
	sites := []Site{siteOf(hmacKey(), gcmKey())}
	f.Fuzz(func(t *testing.T, b []byte, reseal bool) {
		if reseal && len(b) >= headerLen+hmacLen && len(b) <= largestLen {
			// What random changes would hardly ever reach: another body, sealed well.
			b = bytes.Clone(b)
			copy(b, "CRLN\x01")
			binary.BigEndian.PutUint32(b[8:], uint32(len(b)))
			binary.BigEndian.PutUint32(b[12:], hmacKeyID)
			copy(b[16:], ourSite[:])
			end := len(b) - hmacLen
			copy(b[end:], sum(under(hmacKey(), ourSite, [16]byte(b[32:])), frameContext, b[:end]))
		}
		v := Vector{Kind: "frame", Sites: sites, Frame: b}
		a, refusedA := second(v)
		o, refusedO := ours(v)
		if refusedA != refusedO {
			t.Fatalf("ours refuses it for %q, the second for %q: %x", refusedO, refusedA, b)
		}
		if a != nil && !reflect.DeepEqual(value(t, a), value(t, o)) {
			t.Fatalf("ours %s\nsecond %s\n%x", marshal(t, o), marshal(t, a), b)
		}
	})
}
