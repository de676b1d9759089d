package flood

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/tcpbus"
	"github.com/carillon-go/carillon/provider/udpbus"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/memsite"
)

var (
	floodTime = flag.Duration("flood", 300*time.Millisecond, "how long each kind of forged frames is sent")
	floodRate = flag.Int("flood-rate", 20_000, "how many forged frames a second")
)

const (
	legitimateRate = 500 // events a second
	payloadLen     = 200

	// How much more than before the live heap may hold after a flood. What repair keeps of legitimate
	// events is the largest part of it, and bounded by Config.RingBytes and CacheBytes.
	heapGrowth = 16 << 20
)

// Forged frames, as many as a process can send, raise nothing, are answered by nothing, take no
// memory that stays, and keep no legitimate event from arriving.
func TestFlood_UDPChangesNothing(t *testing.T) {
	port := freeUDPPort(t)
	testFlood(t, func(m *meter) (provider.Provider, error) {
		p, err := udpbus.New(udpbus.Config{Interface: "127.0.0.1", Port: port})
		return udpMeter{p, m}, err
	}, func(g *gang) {
		g.aim("")
		g.orders.Group = fmt.Sprintf("%v:%d", udpbus.DefaultGroup(), port)
	})
}

// Over TCP only who holds a key can send frames at all. One that does and goes mad is no
// other than a stranger on a multicast network.
func TestFlood_TCPChangesNothing(t *testing.T) {
	testFlood(t, tcpTransport, func(g *gang) {
		g.aim(g.victim.provider.(provider.Advertiser).Addresses()[0])
	})
}

func tcpTransport(m *meter) (provider.Provider, error) {
	p, err := tcpbus.New(tcpbus.Config{Listen: "127.0.0.1:0"})
	return tcpMeter{p, m}, err
}

// Who holds no key can only connect, say a hello, and be closed upon. It takes less than it
// gives: an answer of 56 bytes for each hello of 92 and proof of 32.
func TestFlood_TCPStrangersGetLessThanTheyGive(t *testing.T) {
	g := newGang(t)
	g.open(tcpTransport)
	g.aim(g.victim.provider.(provider.Advertiser).Addresses()[0])
	g.raise(10)
	g.eventually("the first events are told", g.allTold)
	stop := g.raiseAlways()
	r, o := g.flood(strangers)
	stop()
	g.eventually("all legitimate events are told", g.allTold)
	t.Logf("%.0f connections/s; %d bytes sent, %d answered; two instances took %.2f CPUs; heap %s, %d goroutines",
		float64(r.Frames)/r.Seconds, r.Bytes, r.Answered, o.cpu/o.seconds, mib(o.heap), o.goroutines)
	if r.Answered > r.Frames*56 || r.Answered > r.Bytes {
		t.Errorf("%d connections that sent %d bytes were answered with %d", r.Frames, r.Bytes, r.Answered)
	}
	if n := g.missed.Load(); n > 0 {
		t.Errorf("%d legitimate events were missed", n)
	}
}

func testFlood(t *testing.T, transport func(*meter) (provider.Provider, error), aim func(*gang)) {
	g := newGang(t)
	g.open(transport)
	aim(g)
	// Something to overhear, and then nothing that instances would say of themselves.
	g.raise(100)
	g.eventually("the first events are told", g.allTold)
	g.eventually("both instances are idle", g.idle)
	t.Run("idle", func(t *testing.T) {
		g.t = t
		r, o := g.flood("mixed")
		for typ, n := range o.spoken {
			// A heartbeat a second of each of two instances, and one that was due.
			if most := 2*(uint64(r.Seconds)+2) + 2; n.frames == 0 || typ == wire.TypeHeartbeat && n.frames <= most {
				continue
			}
			t.Errorf("idle instances sent %d %v frames, %d bytes, while forged ones came in", n.frames, typ, n.bytes)
		}
	})

	stop := g.raiseAlways()
	quiet := g.watch(func() { wait(*floodTime) })
	for _, kind := range append(slices.Clone(kinds), "mixed") {
		t.Run(strings.ReplaceAll(kind, " ", "-"), func(t *testing.T) {
			g.t = t
			r, o := g.flood(kind)
			o.report(t, r, quiet)
			if r.Answered > 0 {
				t.Errorf("%d bytes came back to the flooder", r.Answered)
			}
			g.checkControl(o, r.Seconds)
		})
	}
	g.t = t
	stop()
	g.eventually("all legitimate events are told", g.allTold)
	if n := g.forged.Load(); n > 0 {
		t.Errorf("%d forged events were told", n)
	}
	if n := g.missed.Load(); n > 0 {
		t.Errorf("%d legitimate events were missed", n)
	}
	if n := g.twice.Load(); n > 0 {
		t.Errorf("%d legitimate events were told twice", n)
	}
	after := g.watch(func() { wait(*floodTime) })
	t.Logf("%d legitimate events, all told once; heap %s before, %s after; %d and %d goroutines",
		g.raised.Load(), mib(quiet.heap), mib(after.heap), quiet.goroutines, after.goroutines)
	if after.heap > quiet.heap+heapGrowth {
		t.Errorf("the heap grew from %s to %s", mib(quiet.heap), mib(after.heap))
	}
	if after.goroutines > quiet.goroutines+10 {
		t.Errorf("%d goroutines before, %d after", quiet.goroutines, after.goroutines)
	}
}

// A gang is two instances and who floods them.
type gang struct {
	t              *testing.T
	event          wire.ID
	db             *memsite.Database
	site           site.Site
	secret         []byte
	oldSecret      []byte
	orders         orders
	meters         []*meter
	sender, victim instance

	raised, told, forged, missed, twice atomic.Int64
	raisedAt                            atomic.Int64 // Unix nanoseconds of the last
	mu                                  sync.Mutex
	seen                                map[uint64]bool // ordinals told
}

func newGang(t *testing.T) *gang { return &gang{t: t, event: wire.ID(carillon.NewID())} }

// aim writes the orders of a flooder.
func (g *gang) aim(endpoint string) {
	g.orders = orders{
		Rate: *floodRate, Endpoint: endpoint, Event: g.event, Site: g.site.ID,
		OldKey: 1, OldSecret: g.oldSecret, Key: 2, Secret: g.secret,
	}
}

func (g *gang) allTold() bool { return g.told.Load() == g.raised.Load() }

type instance struct {
	*carillon.Broker
	provider provider.Provider
}

// open makes a site whose first key is revoked, and two instances of it.
func (g *gang) open(transport func(*meter) (provider.Provider, error)) {
	fill := func(b byte) []byte { return bytes.Repeat([]byte{b}, site.SecretLen) }
	g.oldSecret, g.secret = fill(1), fill(2)
	secret, err := site.NewSecret(g.secret)
	if err != nil {
		g.t.Fatal(err)
	}
	g.site = site.NewSite("flood")
	g.site.Keys = []site.Key{
		{ID: 1, State: site.KeyRevoked, Suite: site.SuiteGHASHHMAC, Version: wire.Version},
		{ID: 2, State: site.KeyActive, Suite: site.SuiteGHASHHMAC, Version: wire.Version, Secret: secret},
	}
	g.db = memsite.New(nil)
	g.db.PutSite(g.site)
	g.seen = map[uint64]bool{}
	open := func(server string) instance {
		m := &meter{}
		g.meters = append(g.meters, m)
		p, err := transport(m)
		if err != nil {
			g.t.Fatal(err)
		}
		b, err := carillon.Open(g.t.Context(), carillon.Config{Application: "flood", Server: server, Database: g.db, Providers: []provider.Provider{p}})
		if err != nil {
			g.t.Fatal(err)
		}
		g.t.Cleanup(func() { b.Close() })
		e := b.Event(carillon.ID(g.event))
		e.OnRaised(func(_ context.Context, r carillon.Raised[any]) {
			if r.Local {
				return
			}
			if s, _ := r.Parameter.(string); s == "forged" || server != "victim" {
				g.forged.Add(1)
				return
			}
			g.mu.Lock()
			if g.seen[r.Ordinal] {
				g.twice.Add(1)
			}
			g.seen[r.Ordinal] = true
			g.mu.Unlock()
			g.told.Add(1)
		})
		e.OnMissed(func(_ context.Context, m carillon.Missed) {
			g.missed.Add(1)
			g.t.Logf("%s missed %+v", server, m)
		})
		b.Enable()
		return instance{b, p}
	}
	g.sender, g.victim = open("sender"), open("victim")
}

func (g *gang) raise(n int) {
	for range n {
		if err := g.sender.Event(carillon.ID(g.event)).Raise(context.Background(), carillon.ID{}, strings.Repeat("x", payloadLen)); err != nil {
			g.t.Errorf("raise: %v", err)
			return
		}
		g.raised.Add(1)
		g.raisedAt.Store(time.Now().UnixNano())
	}
}

// raiseAlways raises legitimate events until the function returned is called.
func (g *gang) raiseAlways() (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second / 100)
		defer tick.Stop()
		start, sent := time.Now(), 0
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			due := int(time.Since(start).Seconds() * legitimateRate)
			g.raise(due - sent)
			sent = due
		}
	}()
	return func() { close(done); <-ended }
}

// idle reports whether both instances say nothing any more but their slowest heartbeat.
func (g *gang) idle() bool {
	before := g.spoken()
	wait(900 * time.Millisecond)
	for typ, c := range g.spoken() {
		if n := c.frames - before[typ].frames; n > 0 && (typ != wire.TypeHeartbeat || n > 3) {
			return false
		}
	}
	// After data, a heartbeat is answered for another 3 s.
	return time.Since(time.Unix(0, g.raisedAt.Load())) > 3500*time.Millisecond
}

// flood runs a flooder for a while, and watches what it does to the instances.
func (g *gang) flood(kind string) (result, observation) {
	g.t.Helper()
	orders := g.orders
	orders.Kind = kind
	text, err := json.Marshal(orders)
	if err != nil {
		g.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	said := bufio.NewReader(out)
	if line, err := said.ReadString('\n'); err != nil || strings.TrimSpace(line) != ready {
		in.Close()
		g.t.Fatalf("the flooder said %q, %v; %v", line, err, cmd.Wait())
	}
	o := g.watch(func() { g.tell(in, *floodTime) })
	var r result
	err = json.NewDecoder(said).Decode(&r)
	if werr := cmd.Wait(); err != nil || werr != nil {
		g.t.Fatalf("the flooder: %v, %v", err, werr)
	}
	if r.Frames == 0 {
		g.t.Error("the flooder sent nothing")
	}
	return r, o
}

// tell lets the flooder hear what the instances send, for a while, and then closes its ear,
// which ends it.
func (g *gang) tell(in io.WriteCloser, d time.Duration) {
	defer in.Close()
	w := bufio.NewWriter(in)
	hear := func(f []byte) {
		w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(f))))
		w.Write(f)
	}
	heard := make(chan []byte, 4096)
	for _, m := range g.meters {
		for _, f := range m.first() {
			hear(f)
		}
		m.listen(heard)
		defer m.listen(nil)
	}
	end := time.NewTimer(d)
	defer end.Stop()
	for {
		select {
		case <-end.C:
			return
		case f := <-heard:
			hear(f)
			if len(heard) == 0 && w.Flush() != nil {
				return
			}
		}
	}
}

// An observation is what was measured of this process, which holds both instances.
type observation struct {
	seconds    float64
	cpu        float64 // seconds
	heap       uint64  // bytes that live, after a collection
	goroutines int
	spoken     map[wire.Type]count
	victim     carillon.Stats // what was added
	told       int64
}

func (g *gang) watch(fn func()) observation {
	before, spoken, told := g.victim.Stats(), g.spoken(), g.told.Load()
	start, used := time.Now(), cpu()
	fn()
	o := observation{seconds: time.Since(start).Seconds(), cpu: cpu() - used, spoken: g.spoken(), victim: g.victim.Stats(), told: g.told.Load() - told}
	for typ, c := range spoken {
		o.spoken[typ] = count{o.spoken[typ].frames - c.frames, o.spoken[typ].bytes - c.bytes}
	}
	o.victim.FramesReceived -= before.FramesReceived
	o.victim.Repair.Asked -= before.Repair.Asked
	o.victim.Repair.Repaired -= before.Repair.Repaired
	for r, n := range before.Drops {
		o.victim.Drops[r] -= n
	}
	maps.DeleteFunc(o.victim.Drops, func(_ carillon.DropReason, n uint64) bool { return n == 0 })
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	o.heap, o.goroutines = m.HeapAlloc, runtime.NumGoroutine()
	return o
}

func (o observation) report(t *testing.T, r result, quiet observation) {
	t.Logf("sent %.0f frames/s of %d B by a process that took %.2f CPUs; victim took in %.0f/s (%v); two instances took %.2f CPUs, %.2f without a flood; told %.0f/s; asked %d times for frames, %d repaired; heap %s, %d goroutines",
		float64(r.Frames)/r.Seconds, r.Bytes/max(1, r.Frames), r.CPU/r.Seconds,
		float64(o.victim.FramesReceived)/o.seconds, o.victim.Drops,
		o.cpu/o.seconds, quiet.cpu/quiet.seconds, float64(o.told)/o.seconds, o.victim.Repair.Asked, o.victim.Repair.Repaired, mib(o.heap), o.goroutines)
}

// checkControl holds what both instances said against what they say without a flood: at most
// a heartbeat and an acknowledgement each 50 ms. Where the flood made the network lose frames,
// they ask each other for them and answer; the flooder has no part in that.
func (g *gang) checkControl(o observation, seconds float64) {
	most := 2*uint64(seconds*20) + 40
	for typ, c := range o.spoken {
		switch typ {
		case wire.TypeEvents, wire.TypeNAK:
		case wire.TypeGone:
			if n := o.spoken[wire.TypeNAK].frames; c.frames > 64*n {
				g.t.Errorf("%d GONE frames were sent for %d NAKs", c.frames, n)
			}
		case wire.TypeHeartbeat, wire.TypeACK:
			if c.frames > most {
				g.t.Errorf("%d %v frames were sent in %.1f s, at most %d are without a flood", c.frames, typ, seconds, most)
			}
		default:
			if c.frames > 0 {
				g.t.Errorf("%d %v frames of %d bytes were sent while forged frames came in", c.frames, typ, c.bytes)
			}
		}
	}
}

type count struct{ frames, bytes uint64 }

// spoken returns what both instances have sent.
func (g *gang) spoken() map[wire.Type]count {
	all := map[wire.Type]count{}
	for _, m := range g.meters {
		m.mu.Lock()
		for typ, c := range m.sent {
			a := all[typ]
			all[typ] = count{a.frames + c.frames, a.bytes + c.bytes}
		}
		m.mu.Unlock()
	}
	return all
}

// A meter counts what an instance sends, and lets somebody hear it.
type meter struct {
	mu    sync.Mutex
	sent  map[wire.Type]count
	kept  map[wire.Type][][]byte // the first of each type, up to 16
	heard chan<- []byte
}

// first returns the first frames of each type, those of the start among them.
func (m *meter) first() (all [][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, list := range m.kept {
		all = append(all, list...)
	}
	return all
}

func (m *meter) listen(heard chan<- []byte) {
	m.mu.Lock()
	m.heard = heard
	m.mu.Unlock()
}

func (m *meter) count(frames [][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sent == nil {
		m.sent, m.kept = map[wire.Type]count{}, map[wire.Type][][]byte{}
	}
	for _, f := range frames {
		typ := wire.FrameType(f)
		c := m.sent[typ]
		m.sent[typ] = count{c.frames + 1, c.bytes + uint64(len(f))}
		if len(m.kept[typ]) < 16 {
			m.kept[typ] = append(m.kept[typ], f)
		}
		select {
		case m.heard <- f:
		default:
		}
	}
}

type udpMeter struct {
	*udpbus.Provider
	meter *meter
}

func (u udpMeter) Send(ctx context.Context, frames [][]byte) error {
	u.meter.count(frames)
	return u.Provider.Send(ctx, frames)
}

type tcpMeter struct {
	*tcpbus.Provider
	meter *meter
}

func (p tcpMeter) Send(ctx context.Context, frames [][]byte) error {
	p.meter.count(frames)
	return p.Provider.Send(ctx, frames)
}

func (p tcpMeter) SendTo(ctx context.Context, to site.StreamID, frames [][]byte) error {
	p.meter.count(frames)
	return p.Provider.SendTo(ctx, to, frames)
}

func mib(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// wait is for a measurement that lasts as long as it is told to.
func wait(d time.Duration) { <-time.After(d) }

// eventually waits until ok, for real sockets, where there is no fake clock.
func (g *gang) eventually(what string, ok func() bool) {
	g.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			g.t.Fatalf("not within 20 s: %s (%d raised, %d told, %d missed)", what, g.raised.Load(), g.told.Load(), g.missed.Load())
		}
	}
}

// freeUDPPort returns a port that nobody used a moment ago.
func freeUDPPort(t *testing.T) int {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).Port
}
