package carillon

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/memsite"
)

// What a Broker remembers of its own past is bounded, however often its row goes away.
func TestBroker_RemembersABoundedPast(t *testing.T) {
	db := memsite.New(nil)
	cfg, err := Config{Application: "test", Database: db, Providers: []provider.Provider{membus.New().Provider()}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	b := newBroker(cfg)
	s, err := db.EnsureSite(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	b.siteID = s.ID
	for range 2 * maxOwn {
		stream, err := b.join(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		sl, err := seal.NewSealer(s.Keys[0], s.ID, stream)
		if err != nil {
			t.Fatal(err)
		}
		b.addSealer(&sealer{Sealer: sl, stream: stream, key: s.Keys[0].ID})
		if own := *b.own.Load(); !own.has(stream) || len(own) > maxOwn {
			t.Fatalf("%d own streams, the last one among them: %v", len(own), own.has(stream))
		}
		if list := *b.sealers.Load(); list[0].stream != stream || len(list) > maxSealers {
			t.Fatalf("%d sealers", len(list))
		}
	}
}

func TestMemberTable_ForgetsTheDead(t *testing.T) {
	var table memberTable
	now := time.Unix(0, 0)
	row := site.Member{Stream: site.StreamID{1}, Server: "a", State: site.MemberOpen}
	if !table.update([]site.Member{row}, now) || table.update([]site.Member{row}, now) {
		t.Error("a new row is a change, and the same row is none")
	}
	row.Addresses = map[string][]string{"tcp": {"127.0.0.1:1"}}
	if !table.update([]site.Member{row}, now) {
		t.Error("an address is a change")
	}
	row.Mark.Frame++
	if table.update([]site.Member{row}, now) {
		t.Error("a mark is a change")
	}
	row.State = site.MemberClosed
	if !table.update([]site.Member{row}, now) || len(table.open()) != 0 {
		t.Error("the end is a change")
	}
	table.update(nil, now.Add(forgetClosed))
	if table.source(row.Site, row.Stream).Server != "a" {
		t.Error("its name is forgotten at once")
	}
	table.update(nil, now.Add(forgetClosed+1))
	if len(table.members)+len(table.sources) != 0 {
		t.Error("it is remembered for ever")
	}
}

func TestControlQueue_IsBounded(t *testing.T) {
	b := newBroker(Config{Logger: slog.New(slog.DiscardHandler)})
	for range maxControl + 10 {
		b.queueControlLocked(time.Now(), &engine.Control{})
	}
	if len(b.control) != maxControl || b.counts.controlDrops.Load() != 10 || b.controlQueued-b.controlSent != maxControl {
		t.Errorf("%d control frames wait, %d dropped", len(b.control), b.counts.controlDrops.Load())
	}
}
