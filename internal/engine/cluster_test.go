package engine

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// A cluster is several machines on one fake clock, with a member table and a
// network that loses, doubles, delays and reorders. One goroutine, one seed.
type cluster struct {
	t     testing.TB
	rand  *rand.Rand
	now   time.Time
	queue delivery
	seq   int
	epoch uint64
	rows  []site.Member
	revs  []int // by row: when it changed last
	rev   int
	nodes []*node

	loss, dup float64
	delay     time.Duration
	cut       func(from, to *node) bool
	tweak     func(*Config)
}

// A node is one instance, with the ledger of what it was told.
type node struct {
	c      *cluster
	m      *Machine
	stream site.StreamID
	fx     Effects
	down   bool // no longer running
	killed bool // without a goodbye
	inStep time.Time
	read   int // revision up to which it has read the member table
	onWay  int // bytes of event frames on their way to it, with what they are charged
	most   int // of these

	raised []time.Time                            // by ordinal: when this node raised it
	told   map[site.StreamID]map[uint64]int       // ordinal → times raised
	missed map[site.StreamID]map[uint64]int       // ordinal → times missed
	order  map[site.StreamID]map[wire.ID][]uint64 // Ordered events in the order told
	misses []Missed
	base   map[site.StreamID]site.Mark
}

type parcel struct {
	at  time.Time
	seq int
	run func()
}

type delivery []parcel

func (d delivery) Len() int { return len(d) }
func (d delivery) Less(i, j int) bool {
	if d[i].at.Equal(d[j].at) {
		return d[i].seq < d[j].seq
	}
	return d[i].at.Before(d[j].at)
}
func (d delivery) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d *delivery) Push(x any)   { *d = append(*d, x.(parcel)) }
func (d *delivery) Pop() any     { p := (*d)[len(*d)-1]; *d = (*d)[:len(*d)-1]; return p }

var testSite = site.ID{1}

func newCluster(t testing.TB, seed uint64) *cluster {
	return &cluster{t: t, rand: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1000, 0),
		delay: time.Millisecond, cut: func(_, _ *node) bool { return false }, tweak: func(*Config) {}}
}

func (c *cluster) after(d time.Duration, run func()) {
	c.seq++
	heap.Push(&c.queue, parcel{c.now.Add(d), c.seq, run})
}

func testConfig(stream site.StreamID, seed uint64) Config {
	return Config{Site: testSite, Stream: stream, Role: site.RolePublish | site.RoleSubscribe, Key: 1,
		FrameBytes: 1200, TrailerBytes: 32, MaxEventBytes: 1 << 20, UnsentBytes: 8 << 20, RingBytes: 32 << 20, RingFrames: 32768,
		HoldFrames: 256, HoldBytes: 1 << 20, CacheBytes: 64 << 20, MissedAfter: 2 * time.Second, MaxStall: time.Second, Seed: seed}
}

// start adds an instance, registered and asking where the others stand.
func (c *cluster) start() *node {
	c.epoch++
	n := &node{c: c, stream: site.NewStreamID(c.epoch, c.rand.Uint64()), told: map[site.StreamID]map[uint64]int{},
		missed: map[site.StreamID]map[uint64]int{}, order: map[site.StreamID]map[wire.ID][]uint64{}, base: map[site.StreamID]site.Mark{}}
	cfg := testConfig(n.stream, c.rand.Uint64())
	c.tweak(&cfg)
	n.m = New(cfg)
	c.nodes = append(c.nodes, n)
	c.register(n.stream)
	n.m.Start(c.now, n.changes(), &n.fx)
	n.effects()
	c.after(time.Second, n.poll)
	return n
}

// poll reads the member table, at intervals.
func (n *node) poll() {
	if n.down {
		return
	}
	n.row().Mark = n.m.HandedMark()
	n.m.Members(n.c.now, n.changes(), false, &n.fx)
	n.effects()
	n.c.after(time.Second, n.poll)
}

// row returns n's row, to be changed.
func (n *node) row() *site.Member {
	i := slices.IndexFunc(n.c.rows, func(r site.Member) bool { return r.Stream == n.stream })
	n.c.rev++
	n.c.revs[i] = n.c.rev
	return &n.c.rows[i]
}

// renumber gives n a new stream with a row of its own.
func (n *node) renumber() {
	n.c.epoch++
	if r := n.row(); n.m.Mark().Frame > r.Mark.Frame { // the old row is left
		r.Mark = n.m.Mark()
	}
	n.stream = site.NewStreamID(n.c.epoch, 7)
	n.c.register(n.stream)
	n.m.Renumber(n.c.now, n.stream, &n.fx)
	n.effects()
}

func (c *cluster) register(s site.StreamID) {
	c.rev++
	c.rows = append(c.rows, site.Member{Site: testSite, Stream: s, State: site.MemberOpen})
	c.revs = append(c.revs, c.rev)
}

// changes returns the rows that changed since n read last.
func (n *node) changes() (rows []site.Member) {
	for i, r := range n.c.rows {
		if n.c.revs[i] > n.read {
			rows = append(rows, r)
		}
	}
	n.read = n.c.rev
	return rows
}

// raise raises an event whose payload is its ordinal.
func (n *node) raise(id byte, size int, ordered bool) {
	ord := uint64(len(n.raised))
	payload := make([]byte, max(8, size))
	binary.BigEndian.PutUint64(payload, ord)
	got, err := n.m.Raise(n.c.now, &wire.Event{ID: wire.ID{id}, Raiser: wire.ID{9}, Payload: payload}, ordered)
	if err != nil {
		return
	}
	if got != ord {
		n.c.t.Fatalf("%v: Raise returned ordinal %d, want %d", n.stream, got, ord)
	}
	n.raised = append(n.raised, n.c.now)
	n.flush()
}

func (n *node) flush() {
	frames := n.m.Take(n.c.now, nil)
	for _, f := range frames {
		n.c.broadcast(n, f.Bytes, site.StreamID{})
		n.m.Handed(n.c.now, f.Number, &n.fx)
	}
	n.effects()
}

func (c *cluster) broadcast(from *node, frame []byte, to site.StreamID) {
	for _, n := range c.nodes {
		if n == from || to != (site.StreamID{}) && n.stream != to || c.rand.Float64() < c.loss || c.cut(from, n) {
			continue
		}
		for copies := 1; copies > 0; copies-- {
			charge := len(frame) + FrameCharge
			if h, err := wire.ParseHeader(frame); err != nil || h.Type.Control() {
				charge = 0
			}
			n.onWay += charge
			n.most = max(n.most, n.onWay)
			c.after(time.Duration(c.rand.Int64N(int64(c.delay)))+time.Microsecond, func() {
				n.onWay -= charge
				n.receive(frame)
			})
			if c.rand.Float64() < c.dup {
				copies++
			}
		}
	}
}

func (n *node) receive(frame []byte) {
	if n.down {
		return
	}
	h, err := wire.ParseHeader(frame)
	if err != nil {
		n.c.t.Fatalf("%v sent a frame that does not parse: %v", h.Stream, err)
	}
	if v := n.m.Precheck(h); v != Accepted {
		n.m.Drop(v)
		return
	}
	n.m.Receive(n.c.now, h, frame, wire.Body(frame, 32), &n.fx)
	n.effects()
}

// effects carries out what the machine asked for, and writes the ledger.
func (n *node) effects() {
	if err := n.m.invariant(); err != nil {
		n.c.t.Fatalf("%v: invariant: %v", n.stream, err)
	}
	for _, it := range n.fx.Items {
		s := it.Stream
		if it.Missed != nil {
			n.misses = append(n.misses, *it.Missed)
			for o := it.Missed.First; o <= it.Missed.Last; o++ {
				add(n.missed, s, o)
			}
			continue
		}
		for i := range it.Events.Len() {
			ordinal := it.Ordinal + uint64(i)
			if got := binary.BigEndian.Uint64(it.Events.Payload(i)); got != ordinal {
				n.c.t.Fatalf("%v: event %d of %v has ordinal %d", n.stream, got, s, ordinal)
			}
			add(n.told, s, ordinal)
		}
		if it.order != 0 {
			if n.order[s] == nil {
				n.order[s] = map[wire.ID][]uint64{}
			}
			id := it.Events.ID(0)
			n.order[s][id] = append(n.order[s][id], it.Ordinal)
		}
	}
	for _, ctl := range slices.Concat(n.fx.Control, n.fx.Repairs) {
		n.c.broadcast(n, ctl.Frame, ctl.To)
	}
	if n.fx.InStep {
		n.inStep = n.c.now
		for _, p := range n.m.Peers() {
			n.base[p.Stream] = p.Base
		}
	}
	ask, send := n.fx.AskMembers, n.fx.Send
	n.fx.Reset()
	if send {
		n.flush()
	}
	if ask {
		n.c.after(time.Millisecond, func() {
			if !n.down {
				n.m.Members(n.c.now, n.changes(), true, &n.fx)
				n.effects()
			}
		})
	}
}

func add(m map[site.StreamID]map[uint64]int, s site.StreamID, o uint64) {
	if m[s] == nil {
		m[s] = map[uint64]int{}
	}
	m[s][o]++
}

// run lets d pass.
func (c *cluster) run(d time.Duration) {
	end := c.now.Add(d)
	for {
		next := end
		if len(c.queue) > 0 && c.queue[0].at.Before(next) {
			next = c.queue[0].at
		}
		var due *node
		for _, n := range c.nodes {
			if at := n.m.Next(); !n.down && !at.IsZero() && at.Before(next) {
				next, due = at, n
			}
		}
		if !next.Before(end) {
			c.now = end
			return
		}
		if next.After(c.now) {
			c.now = next
		}
		if due != nil {
			due.m.Tick(c.now, &due.fx)
			if at := due.m.Next(); !at.IsZero() && !at.After(c.now) {
				c.t.Fatalf("%v: Tick at %v left something due at %v", due.stream, c.now, at)
			}
			due.effects()
			continue
		}
		heap.Pop(&c.queue).(parcel).run()
	}
}

// deafen has n hear nothing from now on: nobody can ask it for a repair.
func (c *cluster) deafen(n *node) { c.cut = func(_, to *node) bool { return to == n } }

// crash ends n as kill -9 does.
func (n *node) crash() { n.down, n.killed = true, true }

// leave ends n in order.
func (n *node) leave() {
	n.m.Bye(n.c.now, &n.fx)
	n.effects()
	r := n.row()
	r.State, r.Mark = site.MemberClosed, n.m.Mark()
	n.down = true
}

// verify holds the ledger against the promise: of every event that a live
// sender raised since a receiver was in step, the receiver was told exactly once,
// and of none that lies below its baseline.
func (c *cluster) verify() {
	c.t.Helper()
	for _, to := range c.nodes {
		if to.inStep.IsZero() {
			continue
		}
		for _, from := range c.nodes {
			if from == to {
				continue
			}
			base := to.base[from.stream].Next
			for o, at := range from.raised {
				told, missed := to.told[from.stream][uint64(o)], to.missed[from.stream][uint64(o)]
				switch {
				case told+missed > 1:
					c.t.Errorf("%v heard event %d of %v %d times and missed it %d times", to.stream, o, from.stream, told, missed)
				case uint64(o) < base && missed > 0:
					c.t.Errorf("%v missed event %d of %v, below its baseline %d", to.stream, o, from.stream, base)
				case told+missed == 0 && !from.killed && !to.down && at.After(to.inStep):
					c.t.Errorf("%v was told nothing of event %d of %v", to.stream, o, from.stream)
				}
			}
			for o := range to.told[from.stream] {
				if o >= uint64(len(from.raised)) {
					c.t.Errorf("%v heard event %d of %v, which was never raised", to.stream, o, from.stream)
				}
			}
			for o := range to.missed[from.stream] {
				if o >= uint64(len(from.raised)) {
					c.t.Errorf("%v missed event %d of %v, which was never raised", to.stream, o, from.stream)
				}
			}
			for id, ords := range to.order[from.stream] {
				if !slices.IsSorted(ords) {
					c.t.Errorf("%v heard the Ordered event %x of %v in the order %v", to.stream, id[0], from.stream, ords)
				}
			}
		}
	}
}

func (c *cluster) missed() (n int) {
	for _, to := range c.nodes {
		for _, m := range to.missed {
			n += len(m)
		}
	}
	return n
}

// invariant returns what is wrong with m, or nil.
func (m *Machine) invariant() error {
	s := &m.send
	switch {
	case s.handed.Frame > s.taken.Frame || s.taken.Frame > s.number:
		return fmt.Errorf("handed %d, taken %d, number %d", s.handed.Frame, s.taken.Frame, s.number)
	case len(s.ring.frames) > 0 && s.ring.frames[len(s.ring.frames)-1].Number != s.taken.Frame:
		return fmt.Errorf("the ring ends at %d, taken %d", s.ring.frames[len(s.ring.frames)-1].Number, s.taken.Frame)
	}
	if e := s.ring.evicted; len(e) > 0 {
		if low := s.ring.low(); e[len(e)-1].number != low.Frame || e[0].number+uint64(len(e)) != low.Frame+1 {
			return fmt.Errorf("evictions %d-%d do not end at %d", e[0].number, e[len(e)-1].number, low.Frame)
		}
	}
	for i, p := range m.peers {
		if i > 0 && compareStreams(m.peers[i-1], p.stream) >= 0 || m.byStream[p.stream] != p {
			return fmt.Errorf("peer %v is in the wrong place", p)
		}
		if err := p.window.invariant(); err != nil {
			return fmt.Errorf("%v: %w", p, err)
		}
		if len(p.gaps) == 0 && len(p.waiting) > 0 {
			return fmt.Errorf("%v: %d Ordered events wait for nothing", p, len(p.waiting))
		}
		if due := len(p.gaps) > 0 || !p.askAt.IsZero() || !p.doubtAt.IsZero(); due && !slices.Contains(m.gappy, p) {
			return fmt.Errorf("%v: Tick does not look after it", p)
		}
	}
	for i, p := range m.gappy {
		if i > 0 && compareStreams(m.gappy[i-1], p.stream) >= 0 || m.byStream[p.stream] != p {
			return fmt.Errorf("%v is in the wrong place among those that Tick looks after", p)
		}
	}
	return nil
}
