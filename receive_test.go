package carillon_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/memsite"
)

// A target is a Broker that a puppet talks to.
type target struct {
	*carillon.Broker
	t      *testing.T
	puppet *puppet
	db     *memsite.Database
	bus    *membus.Bus
	event  carillon.ID
	rec    *carillontest.Recorder[any]
	log    logBook
}

// newTarget opens a target, in a bubble.
func newTarget(t *testing.T, change ...func(*carillon.Config)) *target {
	t.Helper()
	g := &target{t: t, event: carillon.NewID()}
	g.db, g.bus = site2()
	cfg := config(g.db, g.bus.Provider())
	cfg.Logger = g.log.logger()
	for _, fn := range change {
		fn(&cfg)
	}
	g.Broker = mustOpen(t, cfg)
	g.Enable()
	g.rec = carillontest.RecordEvent(t, g.Event(g.event))
	g.puppet = newPuppet(t, g.db, g.bus)
	g.puppet.register(g.db)
	time.Sleep(3 * time.Second) // the target reads the puppet's row, and acknowledges nothing any more
	synctest.Wait()
	return g
}

// pass lets time pass in the bubble.
func (g *target) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// valid returns a frame that will be accepted, with number as its number.
func (g *target) valid(number uint64) []byte {
	return g.puppet.event(g.puppet.header(number), g.puppet.key(), g.event, "x")
}

// drops has the puppet send a frame, and returns which counter that moves, or "" if the
// frame is taken. Nothing may be answered.
func (g *target) drops(frame []byte) carillon.DropReason {
	g.t.Helper()
	before, heard, told := g.Stats().Drops, len(g.puppet.frames()), len(g.rec.Raised())
	g.puppet.send(frame)
	synctest.Wait()
	var moved carillon.DropReason
	for r, n := range g.Stats().Drops {
		switch {
		case n == before[r]:
		case n == before[r]+1 && moved == 0:
			moved = r
		default:
			g.t.Errorf("one frame: %v dropped %d more, and %v as well", r, n-before[r], moved)
		}
	}
	if moved == carillon.DropUnknownStream {
		heard += len(g.puppet.frames(wire.TypeWitness)) // its tag is right: do we share a database?
	}
	if n := len(g.puppet.frames()) - heard; n != 0 {
		g.t.Errorf("a frame dropped as %v was answered by %d frames", moved, n)
	}
	if n := len(g.rec.Raised()) - told; moved != 0 && n != 0 {
		g.t.Errorf("a frame dropped as %v raised %d events", moved, n)
	}
	return moved
}

func TestReceive_DropsEveryAlteredByte(t *testing.T) { // E8, E9
	bubble(t, func(t *testing.T) {
		g := newTarget(t)
		frame := g.valid(1)
		// The reasons that an alteration in each part of the header may have.
		// Everything after it is covered by the tag alone.
		parts := []struct {
			end  int
			want []carillon.DropReason
		}{
			{4, []carillon.DropReason{carillon.DropMalformed}},                           // magic
			{5, []carillon.DropReason{carillon.DropVersion}},                             // version
			{12, []carillon.DropReason{carillon.DropMalformed}},                          // type, flags, length
			{16, []carillon.DropReason{carillon.DropUnknownKey, carillon.DropMalformed}}, // key; malformed if 0
			{32, []carillon.DropReason{carillon.DropForeignSite}},                        // site
			{48, []carillon.DropReason{carillon.DropBadTag}},                             // stream
			{68, []carillon.DropReason{carillon.DropBadTag, carillon.DropMalformed}},     // number, ordinal, count
			{len(frame), []carillon.DropReason{carillon.DropBadTag}},                     // clock, body, tag
		}
		for i := range frame {
			part := slices.IndexFunc(parts, func(p struct {
				end  int
				want []carillon.DropReason
			}) bool {
				return i < p.end
			})
			for _, flip := range []byte{0x01, 0x80, 0xff} {
				altered := bytes.Clone(frame)
				altered[i] ^= flip
				if got := g.drops(altered); !slices.Contains(parts[part].want, got) {
					t.Errorf("byte %d altered by %#x: dropped as %v, want one of %v", i, flip, got, parts[part].want)
				}
			}
		}
		if n := len(g.rec.Raised()); n != 0 {
			t.Fatalf("%d events raised", n)
		}
		if got := g.drops(frame); got != 0 { // and nothing of all that stands in its way
			t.Errorf("the frame itself is dropped as %v", got)
		}
		g.rec.WaitRaised(1)
		time.Sleep(time.Minute)
		synctest.Wait()
		if m := g.rec.Missed(); len(m) != 0 {
			t.Errorf("missed: %+v", m)
		}
	})
}

func TestReceive_DropsWhateverIsNotAFrame(t *testing.T) { // E9
	bubble(t, func(t *testing.T) {
		g := newTarget(t)
		frame := g.valid(1)
		for n := range frame {
			if got := g.drops(frame[:n]); got != carillon.DropMalformed {
				t.Errorf("truncated to %d bytes: dropped as %v", n, got)
			}
		}
		if got := g.drops(append(bytes.Clone(frame), 0)); got != carillon.DropMalformed {
			t.Errorf("with a byte more: dropped as %v", got)
		}
		for _, n := range []int{1, 32, 76, 1000, 1 << 20} {
			garbage := make([]byte, n)
			rand.Read(garbage)
			if got := g.drops(garbage); got != carillon.DropMalformed {
				t.Errorf("%d random bytes: dropped as %v", n, got)
			}
		}
		if got := g.drops(make([]byte, wire.MaxFrameLen+1)); got != carillon.DropTooLarge {
			t.Errorf("oversized: dropped as %v", got)
		}
		if got := g.drops(frame); got != 0 {
			t.Errorf("the frame itself is dropped as %v", got)
		}
	})
}

func TestReceive_CountsEachDropUnderItsReason(t *testing.T) { // E9
	for _, tt := range []struct {
		name string
		want carillon.DropReason // 0: taken
		make func(g *target) []byte
	}{
		{"a good one", 0, func(g *target) []byte { return g.valid(1) }},
		{"of a site that is not registered", carillon.DropForeignSite, func(g *target) []byte {
			h := g.puppet.header(1)
			h.Site[0]++
			return g.puppet.event(h, g.puppet.key(), g.event, "x")
		}},
		{"under a key that does not exist", carillon.DropUnknownKey, func(g *target) []byte {
			h, key := g.puppet.header(1), g.puppet.key()
			h.Key, key.ID = 9, 9
			return g.puppet.event(h, key, g.event, "x")
		}},
		{"under a key that the database, which is away, may have", carillon.DropIsolated, func(g *target) []byte {
			g.db.SetDown(errTest)
			g.pass(2 * time.Second)
			h, key := g.puppet.header(1), g.puppet.key()
			h.Key, key.ID = 9, 9
			return g.puppet.event(h, key, g.event, "x")
		}},
		{"of a stream that must wait, and there is no room", carillon.DropHeldOverflow, func(g *target) []byte {
			g.db.SetDown(errTest) // so that nobody can say whether the stream is registered
			g.puppet.stream[15]++
			for n := uint64(1); n <= 256; n++ {
				g.puppet.send(g.valid(n))
			}
			synctest.Wait()
			return g.valid(257)
		}},
		{"under another secret", carillon.DropBadTag, func(g *target) []byte {
			return g.puppet.event(g.puppet.header(1), anotherSecret(g.puppet.key()), g.event, "x")
		}},
		{"sealed for another stream", carillon.DropBadTag, func(g *target) []byte {
			f := g.valid(1)
			h, _ := wire.ParseHeader(f)
			h.Stream[15]++
			wire.PutHeader(f, h)
			return f
		}},
		{"under a revoked key", carillon.DropRetiredKey, func(g *target) []byte {
			s := g.puppet.site
			s.Generation++
			s.Keys = append(slices.Clone(s.Keys), site.Key{ID: 2, State: site.KeyRevoked, Suite: site.SuiteHMACSHA256, Version: 1, Secret: s.Keys[0].Secret})
			g.db.PutSite(s)
			g.pass(2 * time.Second)
			h, key := g.puppet.header(1), g.puppet.key()
			h.Key, key.ID = 2, 2
			return g.puppet.event(h, key, g.event, "x")
		}},
		{"under a key below the floors", carillon.DropFloor, func(g *target) []byte {
			s := g.puppet.site
			s.Floors.EncryptionRequired = true
			g.db.PutSite(s)
			g.pass(2 * time.Second)
			return g.valid(1)
		}},
		{"under a key of a suite to come", carillon.DropUnsupportedKey, func(g *target) []byte {
			s := g.puppet.site
			s.Generation++
			s.Keys = append(slices.Clone(s.Keys), site.Key{ID: 2, State: site.KeyPending, Suite: 77, Version: 1, Secret: s.Keys[0].Secret})
			g.db.PutSite(s)
			g.pass(2 * time.Second)
			h, key := g.puppet.header(1), g.puppet.key()
			h.Key, key.ID = 2, 2
			return g.puppet.event(h, key, g.event, "x")
		}},
		{"of another wire version", carillon.DropVersion, func(g *target) []byte {
			f := g.valid(1)
			f[4]++
			return f
		}},
		{"its own", carillon.DropOwn, func(g *target) []byte {
			if err := g.Event(g.event).Raise(g.t.Context(), carillon.ID{}, "x"); err != nil {
				g.t.Fatal(err)
			}
			g.pass(10 * time.Second) // until the puppet, which acknowledges nothing, is not waited for
			g.rec.Reset()
			return g.puppet.frames(wire.TypeEvents)[0]
		}},
		{"seen before", carillon.DropDuplicate, func(g *target) []byte {
			f := g.valid(1)
			g.puppet.send(f)
			g.pass(10 * time.Second)
			return f
		}},
		{"of another site, with a number seen before", carillon.DropForeignSite, func(g *target) []byte {
			g.puppet.send(g.valid(1))
			g.pass(10 * time.Second)
			f := g.valid(1)
			f[31]++ // the site
			return f
		}},
		{"after it was missed", carillon.DropLate, func(g *target) []byte {
			g.puppet.send(g.valid(2))
			g.pass(10 * time.Second)
			return g.valid(1)
		}},
		{"after the end of its stream", carillon.DropClosedStream, func(g *target) []byte {
			if err := g.db.Leave(g.t.Context(), g.puppet.stream, site.Mark{}); err != nil {
				g.t.Fatal(err)
			}
			g.pass(2 * time.Second)
			return g.valid(1)
		}},
		{"of a stream that nobody registered", carillon.DropUnknownStream, func(g *target) []byte {
			g.puppet.stream[15]++
			return g.valid(1)
		}},
		{"that contradicts what came before", carillon.DropInconsistent, func(g *target) []byte {
			g.puppet.send(g.valid(1))
			g.pass(10 * time.Second)
			h := g.puppet.header(2)
			h.Ordinal = 0
			return g.puppet.event(h, g.puppet.key(), g.event, "x")
		}},
		{"that is sealed and makes no sense", carillon.DropUndecodable, func(g *target) []byte {
			return g.puppet.frame(g.puppet.header(1), g.puppet.key(), []byte{9, 9, 9, 9})
		}},
		{"whose event nobody asked for", carillon.DropUnasked, func(g *target) []byte {
			return g.puppet.event(g.puppet.header(1), g.puppet.key(), carillon.NewID(), "x")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := newTarget(t)
				if got := g.drops(tt.make(g)); got != tt.want {
					t.Errorf("dropped as %v, want %v", got, tt.want)
				}
				if tt.want == 0 {
					g.rec.WaitRaised(1)
				}
			})
		})
	}
}

func TestReceive_BeforeTheBaselineIsDropped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, bus := site2()
		first := mustOpen(t, config(db, bus.Provider()))
		first.Enable()
		ear := newPuppet(t, db, bus)
		d := define()
		raise(t, d, first, 1, 1)
		synctest.Wait()
		second := mustOpen(t, config(db, bus.Provider()))
		second.Enable()
		rec := carillontest.Record(t, second, d)
		ear.send(ear.frames(wire.TypeEvents)...)
		synctest.Wait()
		if n := second.Stats().Drops[carillon.DropBeforeBaseline]; n != 1 || len(rec.Raised()) != 0 {
			t.Errorf("dropped %d, raised %d", n, len(rec.Raised()))
		}
	})
}

func TestReceive_LogsEachReasonOncePerSecondAtMost(t *testing.T) { // E9
	bubble(t, func(t *testing.T) {
		g := newTarget(t)
		foreign := g.puppet.header(1)
		foreign.Site[0]++
		frames := map[carillon.DropReason][]byte{
			carillon.DropMalformed:   []byte("garbage"),
			carillon.DropBadTag:      g.puppet.event(g.puppet.header(1), anotherSecret(g.puppet.key()), g.event, "x"),
			carillon.DropForeignSite: g.puppet.event(foreign, g.puppet.key(), g.event, "x"),
		}
		start := time.Now()
		for time.Since(start) < 2500*time.Millisecond {
			for range 20 {
				for _, f := range frames {
					g.puppet.send(f)
				}
			}
			synctest.Wait()
			time.Sleep(50 * time.Millisecond)
		}
		for r := range frames {
			lines := g.log.lines("msg=dropped", "reason="+r.String()+" ")
			if len(lines) != 3 {
				t.Errorf("%v: %d lines in 2.5 s, want 3: %q", r, len(lines), lines)
			}
			if n := g.Stats().Drops[r]; n != 1000 {
				t.Errorf("%v: counted %d, want 1000", r, n)
			}
		}
		time.Sleep(10 * time.Second) // what was not logged yet
		synctest.Wait()
		for r := range frames {
			if lines := g.log.lines("msg=dropped", "reason="+r.String()+" ", "total=1000"); len(lines) != 1 {
				t.Errorf("%v: the last ones are never logged: %q", r, g.log.lines("reason="+r.String()))
			}
		}
		for _, line := range g.log.lines("msg=dropped", "bad-tag") {
			if !bytes.Contains([]byte(line), []byte("provider=mem")) && !bytes.Contains([]byte(line), []byte("total=1000")) {
				t.Errorf("the line does not name the provider: %q", line)
			}
		}
	})
}

func TestReceive_FramesOfSitesAccepted(t *testing.T) { // E9a
	for _, tt := range []struct {
		name   string
		accept []string
		want   bool
	}{
		{"every one by default", nil, true},
		{"none", []string{}, false},
		{"the one named", []string{"other"}, true},
		{"another one named", []string{"third"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				db, bus := site2()
				other := config(db, bus.Provider())
				other.Site = "other"
				sender := mustOpen(t, other)
				sender.Enable()
				own := config(db, bus.Provider())
				own.AcceptSites = tt.accept
				b := mustOpen(t, own)
				b.Enable()
				d := define()
				rec := carillontest.Record(t, b, d)
				raise(t, d, sender, 1, 1)
				time.Sleep(time.Second)
				synctest.Wait()
				got := len(rec.Raised()) == 1
				if got != tt.want {
					t.Errorf("an event of another site of the same database is raised: %v, want %v; drops %v", got, tt.want, b.Stats().Drops)
				}
				if foreign := b.Stats().Drops[carillon.DropForeignSite] > 0; foreign == tt.want {
					t.Errorf("dropped as of a foreign site: %v", foreign)
				}
				names := map[string]bool{}
				for _, m := range b.Members() {
					names[m.SiteName] = true
				}
				if !names["test"] || names["other"] != tt.want {
					t.Errorf("members of sites %v", names)
				}
				if got {
					if src := rec.Raised()[0].Source.Site; src == b.Members()[0].Site && b.Members()[0].SiteName == "test" {
						t.Error("the source has the wrong site")
					}
				}
			})
		})
	}
}

func TestReceive_SiteRegisteredLaterIsAccepted(t *testing.T) {
	for _, accept := range [][]string{nil, {"later"}} {
		bubble(t, func(t *testing.T) {
			db, bus := site2()
			cfg := config(db, bus.Provider())
			cfg.AcceptSites = accept
			b := mustOpen(t, cfg)
			b.Enable()
			d := define()
			rec := carillontest.Record(t, b, d)
			later := config(db, bus.Provider())
			later.Site = "later"
			sender := mustOpen(t, later)
			sender.Enable()
			time.Sleep(2 * time.Second)
			raise(t, d, sender, 1, 1)
			rec.WaitRaised(1)
		})
	}
}

func TestReceive_ForeignDatabaseOnTheSameNetworkIsDropped(t *testing.T) { // E9a
	bubble(t, func(t *testing.T) {
		bus := membus.New()
		here := mustOpen(t, config(memsite.New(nil), bus.Provider()))
		there := mustOpen(t, config(memsite.New(nil), bus.Provider()))
		here.Enable()
		there.Enable()
		d := define()
		rec := carillontest.Record(t, here, d)
		raise(t, d, there, 1, 3)
		time.Sleep(time.Minute)
		synctest.Wait()
		s := here.Stats()
		if len(rec.Raised()) != 0 || s.Drops[carillon.DropForeignSite] == 0 || s.Received != 0 || len(s.Peers) != 0 {
			t.Errorf("raised %v, stats %+v", rec.Raised(), s)
		}
	})
}

func TestReceive_TrustsASecureChannelOnlyIfAllAgree(t *testing.T) { // E8
	secure, plain := provider.Capabilities{SecureChannel: true}, provider.Capabilities{}
	for _, tt := range []struct {
		name  string
		trust bool
		caps  []provider.Capabilities
		floor bool
		want  bool // an event frame with a wrong tag is taken
	}{
		{"operator and provider agree", true, []provider.Capabilities{secure}, false, true},
		{"the operator does not", false, []provider.Capabilities{secure}, false, false},
		{"the provider does not", true, []provider.Capabilities{plain}, false, false},
		{"one of two providers does not", true, []provider.Capabilities{secure, plain}, false, false},
		{"the floors forbid it", true, []provider.Capabilities{secure}, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := newTarget(t, func(cfg *carillon.Config) {
					cfg.TrustSecureChannel = tt.trust
					inner := cfg.Providers[0].(*membus.Provider)
					cfg.Providers = nil
					for i, caps := range tt.caps {
						if i > 0 {
							inner = membus.New().Provider()
						}
						cfg.Providers = append(cfg.Providers, named{&wrap{Provider: inner, caps: &caps}, fmt.Sprint("mem", i)})
					}
				})
				if tt.floor {
					s := g.puppet.site
					s.Floors.MACRequired = true
					g.db.PutSite(s)
					time.Sleep(2 * time.Second)
				}
				f := g.valid(1)
				f[len(f)-1]++
				if taken := g.drops(f) == 0; taken != tt.want {
					t.Errorf("an event frame with a wrong tag is taken: %v, want %v", taken, tt.want)
				}
				control := g.puppet.heartbeat(1)
				control[len(control)-1]++
				if got := g.drops(control); got != carillon.DropBadTag {
					t.Errorf("a control frame with a wrong tag is dropped as %v", got)
				}
			})
		})
	}
}

func TestReceive_NewKeyIsFoundWithoutWaitingForThePoll(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := newTarget(t, func(cfg *carillon.Config) { cfg.Lease, cfg.Poll = time.Hour, 20*time.Minute })
		s := g.puppet.site
		key := anotherSecret(s.Keys[0])
		key.ID, key.State = 2, site.KeyPending
		s.Keys = append(slices.Clone(s.Keys), key)
		s.Generation++
		g.db.PutSite(s)
		h := g.puppet.header(1)
		h.Key = 2
		key.State = site.KeyActive // for the one who seals
		f := g.puppet.event(h, key, g.event, "x")
		if got := g.drops(f); got != carillon.DropUnknownKey {
			t.Errorf("dropped as %v", got)
		}
		time.Sleep(time.Second)
		if got := g.drops(f); got != 0 {
			t.Errorf("a second later: dropped as %v", got)
		}
	})
}

func TestReceive_UnknownKeysProvokeFewReads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		reads := 0
		g := newTarget(t, func(cfg *carillon.Config) {
			cfg.Lease, cfg.Poll = time.Hour, 20*time.Minute
			cfg.Database = &hookedDB{Database: cfg.Database, before: func(_ context.Context, call string) error {
				if call == "Changes" {
					reads++
				}
				return nil
			}}
		})
		synctest.Wait()
		reads = 0
		h, key := g.puppet.header(1), g.puppet.key()
		h.Key, key.ID = 9, 9
		f := g.puppet.event(h, key, g.event, "x")
		for range 10_000 { // for 100 s
			g.puppet.send(f)
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if reads < 2 || reads > 20 {
			t.Errorf("a flood of unknown keys for 100 s provoked %d reads", reads)
		}
	})
}

func TestReconnected_HasTheMemberTableReadAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var env provider.Env
		var reads atomic.Int32
		db, bus := site2()
		p := &wrap{Provider: bus.Provider()}
		p.start = func(ctx context.Context, e provider.Env) error {
			env = e
			return p.Provider.Start(ctx, e)
		}
		cfg := config(&hookedDB{Database: db, before: func(_ context.Context, call string) error {
			if call == "Changes" {
				reads.Add(1)
			}
			return nil
		}}, p)
		cfg.Lease, cfg.Poll = time.Hour, 20*time.Minute
		mustOpen(t, cfg)
		synctest.Wait()
		before := reads.Load()
		env.Reconnected() // marks in the rows tell what was lost meanwhile
		synctest.Wait()
		if n := reads.Load() - before; n != 1 {
			t.Errorf("%d reads of the member table", n)
		}
	})
}

func TestReceive_BatchIsDoneOnceItsEventsAreQueued(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var env provider.Env
		db, bus := site2()
		p := &wrap{Provider: bus.Provider()}
		p.start = func(ctx context.Context, e provider.Env) error {
			env = e
			return p.Provider.Start(ctx, e)
		}
		b := mustOpen(t, config(db, p))
		b.Enable()
		id := carillon.NewID()
		leave := make(chan struct{})
		b.Event(id).OnRaised(func(context.Context, carillon.Raised[any]) { <-leave })
		pup := newPuppet(t, db, bus)
		pup.register(db)
		time.Sleep(2 * time.Second)
		done := 0
		env.Deliver(provider.Batch{Frames: [][]byte{pup.event(pup.header(1), pup.key(), id, "x"), []byte("garbage")}, Done: func() {
			done++
			if n := b.Event(id).Counts().Received; n != 1 {
				t.Errorf("done when %d events are queued", n)
			}
		}})
		if done != 1 {
			t.Errorf("Done called %d times while a subscriber runs", done)
		}
		close(leave)
		env.Deliver(provider.Batch{Frames: [][]byte{{1}}})
		env.Deliver(provider.Batch{Done: func() { done++ }})
		if done != 2 {
			t.Errorf("Done of an empty batch called %d times", done-1)
		}
	})
}
