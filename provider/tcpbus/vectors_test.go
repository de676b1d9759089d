package tcpbus

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/internal/vectors"
	"github.com/carillon-go/carillon/site"
)

// The published handshakes, by the functions that connections use, in the order in
// which the two ends use them.
func TestVectors_HandshakesAreReadAndProvenAsPublished(t *testing.T) {
	list, err := vectors.Read("../../docs/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, v := range list {
		if v.Kind != "handshake" {
			continue
		}
		n++
		t.Run(v.Name, func(t *testing.T) {
			read, refused := readVector(t, v)
			if refused != v.Refused {
				t.Errorf("refused for %q, want %q", refused, v.Refused)
			}
			if v.Want == nil {
				return
			}
			var want map[string]any
			if err := json.Unmarshal(v.Want.Read, &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(read, want) {
				t.Errorf("read %v, want %v", read, want)
			}
		})
	}
	if n < 30 {
		t.Errorf("%d handshakes are published", n)
	}
}

func readVector(t *testing.T, v vectors.Vector) (read map[string]any, refused string) {
	h, err := parseHello(v.Hello)
	if err != nil {
		return nil, wordOf(err)
	}
	a, err := parseAnswer(v.Answer)
	if err != nil {
		return nil, wordOf(err)
	}
	if h.stream == a.stream || h.expected != (site.StreamID{}) && h.expected != a.stream {
		return nil, "stream"
	}
	o := openerOf(t, v.Sites)
	seen := transcript(v.Hello, v.Answer, v.Exporter)
	if err := o.Verify(h.site, h.key, "tcp v1 initiator", seen, [proofLen]byte(v.InitiatorProof)); err != nil {
		return nil, wordOf(err)
	}
	if err := o.Verify(h.site, h.key, "tcp v1 acceptor", append(seen, v.InitiatorProof...), [proofLen]byte(v.AcceptorProof)); err != nil {
		return nil, wordOf(err)
	}
	id := func(b [16]byte) string { return hex.EncodeToString(b[:]) }
	return map[string]any{
		"site": id(h.site), "key": float64(h.key), "initiator": id(h.stream), "expected": id(h.expected), "acceptor": id(a.stream),
	}, ""
}

func openerOf(t *testing.T, list []vectors.Site) *seal.Opener {
	t.Helper()
	states := map[string]site.KeyState{
		"pending": site.KeyPending, "active": site.KeyActive, "retiring": site.KeyRetiring,
		"revoked": site.KeyRevoked, "compromised": site.KeyCompromised,
	}
	var sites []site.Site
	for _, s := range list {
		one := site.Site{ID: site.ID(s.ID), Floors: site.Floors{EncryptionRequired: s.EncryptionRequired, Version: s.LowestVersion}}
		for _, k := range s.Keys {
			secret, err := site.NewSecret(k.TestSecret)
			if err != nil {
				t.Fatal(err)
			}
			one.Keys = append(one.Keys, site.Key{ID: site.KeyID(k.ID), State: states[k.State], Suite: site.Suite(k.Suite), Version: k.Version, Secret: secret})
		}
		sites = append(sites, one)
	}
	o := seal.NewOpener()
	o.SetKeys(sites)
	return o
}

func wordOf(err error) string {
	for word, is := range map[string]error{
		"handshake": errMalformed, "version": errVersion, "proof": seal.ErrProof, "site": seal.ErrUnknownSite,
		"key": seal.ErrUnknownKey, "revoked": seal.ErrRevoked, "floor": seal.ErrFloor,
	} {
		if errors.Is(err, is) {
			return word
		}
	}
	return err.Error()
}
