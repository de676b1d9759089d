package sim

import (
	"fmt"
	"slices"
	"time"
)

// GrowthSizes are the numbers of instances that growth is looked at with.
func GrowthSizes() []int { return []int{2, 4, 8, 16, 32, 64, 128, 256, 512, 1000} }

// GrowthNetworks are the kinds of transport that growth is looked at on.
func GrowthNetworks() []string { return []string{"udp", "tcp", "broker"} }

// growthNetworks says what each is like. On udp and broker nobody can be reached alone.
var growthNetworks = map[string]string{
	"udp":    "datagram frame-bytes=1200 delay=200us jitter=300us shared-loss to-all",
	"tcp":    "ordered delay=200us jitter=300us",
	"broker": "broker delay=500us jitter=500us",
}

const (
	growthLarge = 300             // instances, beyond which phases are shorter
	growthEvent = 200             // bytes
	growthRate  = 100             // events a second of the one who sends alone
	growthEvery = 5 * time.Second // between two events of each, when all send
	growthLossy = 5 * time.Second // for which one sends while frames are lost
)

// A GrowthPhase is what was counted while a site of some size did one thing.
type GrowthPhase struct {
	Name   string
	Length time.Duration

	// Sent and Received are for all instances together. On a network of
	// connections, a frame for everybody is sent once for each of the others.
	Sent, Received [NumKinds]Traffic

	// SenderSent and SenderReceived are the same of the first instance, which sends when
	// only one does.
	SenderSent, SenderReceived [NumKinds]Traffic

	InStep   []time.Duration // how long those took who came into step, ascending
	Repaired []time.Duration // how long event frames that were lost were missing, ascending
	Open     int             // of those, how many are missing still
	Missed   uint64          // events
	Rows     uint64          // of the member table, read by all together
}

// A Growth is a site of one size on one network, and what it did.
type Growth struct {
	Network   string
	Instances int
	Phases    []GrowthPhase
	Took      time.Duration // by the clock of who called
	Result    Result
}

// Phase returns the phase of that name, or nil.
func (g *Growth) Phase(name string) *GrowthPhase {
	for i := range g.Phases {
		if g.Phases[i].Name == name {
			return &g.Phases[i]
		}
	}
	return nil
}

// A grower runs one site through all phases.
type grower struct {
	*world
	n        int
	network  string
	progress func(phase string, at time.Duration)
	phases   []GrowthPhase
}

// Grow has a site of n instances start at once, idle, send, lose frames if the network
// can lose any, take in another, let one leave, and lose one. Frames are not sealed: a tag
// costs more than everything else here, and changes no count. With progress, it says
// where it is, once in each simulated second.
func Grow(network string, n int, progress func(phase string, at time.Duration)) Growth {
	began := time.Now()
	p := defaults(uint64(n))
	p.Idle = max(time.Second, time.Duration(n)*10*time.Millisecond) // as the machines have it
	g := &grower{world: newWorld(p, nil), n: n, network: network, progress: progress}
	g.unsealed, g.tally = true, newTally()
	g.run()
	return Growth{
		Network: network, Instances: n, Phases: g.phases, Took: time.Since(began),
		Result: Result{Verdict: g.checker.Verdict(), Stats: g.stats, Hash: g.hash, Err: g.stopped},
	}
}

func (g *grower) run() {
	g.do("database main")
	g.do("site shop")
	g.do("network net " + growthNetworks[g.network])
	for i := range g.n + 1 {
		g.do(fmt.Sprintf("process p%d", i))
	}
	g.phase("start", 5*time.Second, func() {
		for i := range g.n {
			g.do(fmt.Sprintf("start p%d", i))
		}
	})
	idle := 2 * max(10*time.Second, g.plan.Idle)
	g.phase("idle", idle, func() {})
	long, lossy := 10*time.Second, growthLossy
	if g.n > growthLarge {
		long, lossy = long/2, lossy/2
	}
	g.phase("one", long, func() { g.one(long) })
	g.quiet()
	g.phase("all", long, func() { g.all(long) })
	g.quiet()
	if g.network == "udp" {
		for _, loss := range []string{"shared=0.01", "loss=0.01", "shared=0.05", "loss=0.05"} {
			g.phase(loss, 8*time.Second, func() {
				g.do("weather net " + loss)
				g.one(lossy)
			})
			g.do("weather net")
			g.quiet()
		}
	}
	g.phase("join", 3*time.Second, func() { g.do(fmt.Sprintf("start p%d", g.n)) })
	g.quiet()
	g.phase("leave", 5*time.Second, func() { g.do("stop p1") })
	g.phase("death", 3*g.plan.Idle+20*time.Second, func() { g.do(fmt.Sprintf("kill p%d", g.n)) })
}

// one has the first instance send.
func (g *grower) one(d time.Duration) {
	g.do(fmt.Sprintf("raise p0 n=%d every=%v size=%d", int(growthRate*d/time.Second), time.Second/growthRate, growthEvent))
}

// all has every instance send a little, one after the other.
func (g *grower) all(d time.Duration) {
	for i := range g.n {
		g.after(growthEvery*time.Duration(i)/time.Duration(g.n), func() {
			g.do(fmt.Sprintf("raise p%d n=%d every=%v size=%d", i, d/growthEvery, growthEvery, growthEvent))
		})
	}
}

// quiet waits until heartbeats and acknowledgements of what was sent have ended.
func (g *grower) quiet() { g.pass("…", 6*time.Second) }

// pass lets the time pass.
func (g *grower) pass(name string, d time.Duration) {
	for end := g.now + d; g.now < end && g.stopped == nil; {
		if g.progress != nil {
			g.progress(name, g.now)
		}
		g.runUntil(min(end, g.now.Truncate(time.Second)+time.Second))
	}
}

// phase counts while something goes on that begins with do.
func (g *grower) phase(name string, d time.Duration, do func()) {
	t := g.tally
	*t = *newTally()
	t.open = true
	do()
	g.pass(name, d)
	slices.Sort(t.inStep)
	slices.Sort(t.repaired)
	p := GrowthPhase{Name: name, Length: d, Sent: t.sent, Received: t.received, InStep: t.inStep, Repaired: t.repaired,
		Open: len(t.lost), Missed: t.missed, Rows: t.rows}
	if first := g.processes[0].run; first != nil {
		p.SenderSent, p.SenderReceived = *of(t.sentBy, first), *of(t.heardBy, first)
	}
	g.phases = append(g.phases, p)
	t.open = false
}
