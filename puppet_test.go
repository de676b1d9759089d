package carillon_test

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/site"
)

// A puppet is on the network like an instance and says what the test makes it
// say, with the site's key and a member row, or without.
type puppet struct {
	t      testing.TB
	site   site.Site
	stream site.StreamID
	link   *membus.Provider

	mu    sync.Mutex
	heard [][]byte
}

// newPuppet puts a puppet on the network of the site called "test". It has a row only if it registers.
func newPuppet(t testing.TB, db site.Database, bus *membus.Bus) *puppet {
	t.Helper()
	s, err := db.EnsureSite(context.Background(), "test")
	if err != nil {
		t.Fatal(err)
	}
	p := &puppet{t: t, site: s, link: bus.Provider()}
	epoch, err := db.NextEpoch(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	p.stream = site.NewStreamID(epoch, 1)
	if err := p.link.Start(context.Background(), provider.Env{Logger: slog.New(slog.DiscardHandler), Reconnected: func() {},
		Deliver: func(b provider.Batch) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.heard = append(p.heard, b.Frames...)
		}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.link.Close() })
	return p
}

// register writes a member row for the puppet.
func (p *puppet) register(db site.Database) {
	p.t.Helper()
	if err := db.Join(context.Background(), site.Member{
		Site: p.site.ID, Stream: p.stream, Server: "puppet", Application: "test", Role: site.RolePublish | site.RoleSubscribe,
	}, time.Hour); err != nil {
		p.t.Fatal(err)
	}
}

// header returns the header of an EVENTS frame with one event.
func (p *puppet) header(number uint64) wire.Header {
	return wire.Header{Type: wire.TypeEvents, Key: p.key().ID, Site: p.site.ID, Stream: p.stream, Number: number, Ordinal: number - 1, Count: 1}
}

func (p *puppet) key() site.Key { return p.site.Keys[0] }

// event returns a frame with one event, in which header and key may be changed.
func (p *puppet) event(h wire.Header, key site.Key, id carillon.ID, text string) []byte {
	return p.frame(h, key, wire.AppendRecord(nil, &wire.Event{ID: id, Payload: append([]byte{2}, text...)}))
}

// frame returns a sealed frame with any body.
func (p *puppet) frame(h wire.Header, key site.Key, body []byte) []byte {
	p.t.Helper()
	s, err := seal.NewSealer(key, h.Site, h.Stream)
	if err != nil {
		p.t.Fatal(err)
	}
	f := make([]byte, wire.HeaderLen+len(body)+s.Trailer())
	wire.PutHeader(f, h)
	copy(f[wire.HeaderLen:], body)
	s.Seal(f)
	return f
}

// heartbeat returns a control frame.
func (p *puppet) heartbeat(number uint64) []byte {
	h := p.header(number)
	h.Type, h.Ordinal, h.Count = wire.TypeHeartbeat, 0, 0
	return p.frame(h, p.key(), wire.Heartbeat{}.Append(nil))
}

func (p *puppet) send(frames ...[]byte) {
	p.t.Helper()
	if err := p.link.Send(context.Background(), frames); err != nil {
		p.t.Fatal(err)
	}
}

// frames returns what the puppet has heard so far of the types given, or all.
func (p *puppet) frames(types ...wire.Type) [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found [][]byte
	for _, f := range p.heard {
		h, err := wire.ParseHeader(f)
		if err != nil {
			continue
		}
		for _, t := range types {
			if h.Type == t {
				found = append(found, f)
			}
		}
		if len(types) == 0 {
			found = append(found, f)
		}
	}
	return found
}

// anotherSecret returns key with another secret.
func anotherSecret(key site.Key) site.Key {
	b := make([]byte, site.SecretLen)
	rand.Read(b)
	key.Secret, _ = site.NewSecret(b)
	return key
}
