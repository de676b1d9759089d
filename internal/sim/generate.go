package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

const (
	leastRaises = 100
	leastTime   = 10 * time.Second
)

// Generate makes the plan of a seed: a cluster of 2 to 100 instances, at least
// 100 raises, 10 s and one fault.
func Generate(seed uint64) *Plan {
	g := &generator{rand: rand.New(rand.NewPCG(seed, 0x73_69_6d)), p: defaults(seed)}
	g.settings()
	if g.chance(0.3) {
		g.aim()
	} else {
		g.cluster()
		g.faults()
	}
	g.raises()
	g.finish()
	g.p.sort()
	return g.p
}

type generator struct {
	rand      *rand.Rand
	p         *Plan
	processes []string
	ends      map[string]time.Duration // when processes end for good
	sites     []string
	networks  []generatedNetwork
	busy      time.Duration // until when there are faults and raises
	lively    bool          // faults end, and everything must settle
	revoked   bool
	keysMove  bool // keys change, so no database is restored from before: that takes an operator's word
	restored  bool
	kind      string // of the one network; empty: any
	mute      bool   // nobody speaks on it while idle
}

type generatedNetwork struct{ name, kind string }

func (g *generator) chance(p float64) bool { return g.rand.Float64() < p }

func (g *generator) between(a, b time.Duration) time.Duration {
	return (a + time.Duration(g.rand.Int64N(int64(b-a)+1))).Round(time.Millisecond)
}

func pick[T any](g *generator, from ...T) T { return from[g.rand.IntN(len(from))] }

// weighted returns an index, each as often as its weight says.
func (g *generator) weighted(weights ...int) int {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	n := g.rand.IntN(sum)
	for i, w := range weights {
		if n -= w; n < 0 {
			return i
		}
	}
	return 0
}

func (g *generator) settings() {
	p := g.p
	p.MissedAfter = pick(g, 2*time.Second, 3*time.Second, 5*time.Second, 10*time.Second)
	p.Lease = pick(g, 3*time.Second, 6*time.Second, 30*time.Second)
	p.Poll = pick(g, 200*time.Millisecond, 500*time.Millisecond, time.Second)
	p.SendTime = pick(g, 0, time.Millisecond, 5*time.Millisecond, 50*time.Millisecond)
	if g.chance(0.15) {
		p.RingBytes, p.RingFrames = pick(g, 8<<10, 32<<10), pick(g, 8, 32, 128)
	}
	if g.chance(0.1) {
		p.UnsentBytes = pick(g, 2<<10, 16<<10)
	}
	if g.chance(0.2) {
		p.CacheBytes = pick(g, 0, 16<<10)
	}
	g.lively = g.chance(0.75)
	g.busy = g.between(4*time.Second, 7*time.Second)
	if !g.lively {
		g.busy = leastTime
	}
}

func (g *generator) cluster() {
	p := g.p
	p.add(0, "database main latency=%v", pick(g, time.Millisecond, 5*time.Millisecond, 40*time.Millisecond))
	g.sites = []string{"shop", "depot"}[:1+g.weighted(85, 15)]
	for _, s := range g.sites {
		p.add(0, "site %s database=main suite=%s", s, pick(g, "ghash", "ghash", "hmac", "aes"))
	}
	n := 3
	switch g.weighted(7000, 1000, 1400, 540, 56, 4) {
	case 1:
		n = 2
	case 2:
		n = 4 + g.rand.IntN(2)
	case 3:
		n = 6 + g.rand.IntN(5)
	case 4:
		n = 12 + g.rand.IntN(20)
	case 5:
		n = 40 + g.rand.IntN(61)
	}
	if g.kind != "" {
		g.network("n1", g.kind)
	} else {
		for i := range 1 + g.weighted(75, 25) {
			g.network(fmt.Sprintf("n%d", i+1), []string{"datagram", "ordered", "broker"}[g.weighted(6, 2, 2)])
		}
	}
	p.Idle = max(p.Idle, time.Duration(n)*10*time.Millisecond)
	for i := range n {
		name := fmt.Sprintf("p%d", i+1)
		g.processes = append(g.processes, name)
		p.add(0, "process %s site=%s enable=%v", name, g.sites[i%len(g.sites)], pick(g, 0, 0, 0, 100*time.Millisecond))
		at := g.between(0, 300*time.Millisecond)
		if i > 0 && g.chance(0.15) {
			at = g.between(0, g.busy*3/4) // a late joiner
		}
		p.add(at, "start %s", name)
	}
	g.ends = map[string]time.Duration{}
}

func (g *generator) network(name, kind string) {
	delay := pick(g, 100*time.Microsecond, time.Millisecond, 10*time.Millisecond, 50*time.Millisecond)
	more := ""
	switch kind {
	case "datagram":
		if g.mute {
			g.p.Mute = true
			more = " idle=-1s"
		}
		more += fmt.Sprintf(" frame-bytes=1200 reorder-delay=%v%s", pick(g, 0, delay), pick(g, "", " shared-loss"))
		// So small that it matters to the few events of a plan. Drawn apart, so that it changes
		// nothing else of a seed.
		windows := rand.New(rand.NewPCG(g.p.Seed, uint64(len(g.networks))))
		if n := []int{0, 0, 3 << 10, 8 << 10, 64 << 10}[windows.IntN(5)]; n > 0 {
			more += fmt.Sprintf(" window=%d", n)
		}
	case "broker":
		idle := pick(g, time.Second, 3*time.Second)
		g.p.Idle = max(g.p.Idle, idle)
		more = fmt.Sprintf(" reorder-delay=%v idle=%v again=%.2f", delay, idle, pick(g, 0, 0.05))
	}
	g.networks = append(g.networks, generatedNetwork{name, kind})
	g.p.add(0, "network %s %s delay=%v jitter=%v%s", name, kind, delay, delay*time.Duration(g.rand.IntN(3)), more)
}

// raises spreads events over the time in which there are faults.
func (g *generator) raises() {
	left := leastRaises + g.rand.IntN(60)
	for left > 0 {
		name := pick(g, g.processes...)
		until := g.busy
		if end, ok := g.ends[name]; ok {
			until = end
		}
		if until < time.Second {
			continue
		}
		n := min(left, 1+g.rand.IntN(16))
		left -= n
		every := pick(g, 0, 0, time.Millisecond, 20*time.Millisecond)
		size := 12 + g.rand.IntN(300)
		if n > 1 && g.chance(0.04) {
			left += n - 1
			size, n = 2000+g.rand.IntN(20000), 1 // in fragments
		}
		more := ""
		event := pick(g, "e", "f")
		if g.chance(0.35) {
			event, more = pick(g, "o", "p"), " ordered"
		}
		at := g.between(0, max(until-time.Duration(n)*every, time.Millisecond))
		g.p.add(at, "raise %s n=%d every=%v size=%d event=%s%s", name, n, every, size, event, more)
	}
}

// finish ends the plan: in safety mode while faults last, in liveness mode when
// everything must have settled.
func (g *generator) finish() {
	p := g.p
	if !g.lively {
		p.End = max(leastTime, g.busy)
		return
	}
	p.add(g.busy, "calm")
	if g.chance(0.3) { // somebody joins when all is well again, and is told nothing of before
		late := g.busy + 7*time.Second
		p.add(late, "process late site=%s", g.sites[0])
		p.add(late, "start late")
		for at := late; g.chance(0.8); { // somebody plays to it what was heard before
			at += g.between(5*time.Millisecond, 60*time.Millisecond)
			p.add(at, "replay late")
		}
		p.add(late+2*time.Second, "raise late n=3")
		p.add(late+2*time.Second, "raise %s n=3", g.processes[0])
	}
	p.End = max(leastTime, g.busy+p.settle()+time.Second)
}

// faults invents what goes wrong.
func (g *generator) faults() {
	kinds := []struct {
		weight int
		make   func(at time.Duration)
	}{
		{20, g.weather}, {10, g.cut}, {4, g.isolate}, {4, g.flap}, {4, g.reset}, {14, g.kill}, {5, g.stop}, {8, g.freeze},
		{5, g.slow}, {10, g.databaseAway}, {4, g.databaseOld}, {4, g.brokerDown}, {6, g.rotate}, {1, g.revoke}, {3, g.clone}, {3, g.replay},
	}
	if g.chance(0.05) { // nothing goes wrong but that keys change
		g.rotate(g.between(0, g.busy-time.Second))
		return
	}
	var weights []int
	for _, k := range kinds {
		weights = append(weights, k.weight)
	}
	for range 1 + g.rand.IntN(5) {
		before := len(g.p.Actions)
		for len(g.p.Actions) == before { // some make no sense in some clusters
			kinds[g.weighted(weights...)].make(g.between(0, g.busy-time.Second))
		}
	}
}

// until adds the end of a fault, unless calm will end it.
func (g *generator) until(at time.Duration, format string, args ...any) {
	if at < g.busy {
		g.p.add(at, format, args...)
	}
}

func (g *generator) weather(at time.Duration) {
	n := pick(g, g.networks...)
	if n.kind != "datagram" {
		return
	}
	var bad []string
	for _, b := range []struct {
		name string
		p    float64
		of   []float64
	}{
		{"loss", 0.7, []float64{0.01, 0.05, 0.2, 0.5}}, {"shared", 0.2, []float64{0.05, 0.3}}, {"burst", 0.2, []float64{0.01, 0.05}},
		{"double", 0.3, []float64{0.05, 0.5}}, {"corrupt", 0.2, []float64{0.01, 0.1}}, {"reorder", 0.3, []float64{0.05, 0.3}},
	} {
		if g.chance(b.p) {
			bad = append(bad, fmt.Sprintf("%s=%v", b.name, pick(g, b.of...)))
		}
	}
	if len(bad) == 0 {
		return
	}
	if g.chance(0.4) {
		at = 0
	}
	g.p.add(at, "weather %s %s", n.name, strings.Join(bad, " "))
	if g.chance(0.5) {
		g.until(at+g.between(100*time.Millisecond, 5*time.Second), "weather %s", n.name)
	}
}

// two returns two processes.
func (g *generator) two() (a, b string) {
	i := g.rand.IntN(len(g.processes))
	j := (i + 1 + g.rand.IntN(len(g.processes)-1)) % len(g.processes)
	return g.processes[i], g.processes[j]
}

// where says of a cut on which networks it lies, and in which direction.
func (g *generator) where() string {
	text := pick(g, "", " one-way")
	if len(g.networks) > 1 && g.chance(0.6) {
		text += " on=" + pick(g, g.networks...).name
	}
	return text
}

func (g *generator) cut(at time.Duration) {
	a, b := g.two()
	where := g.where()
	g.p.add(at, "cut %s %s%s", a, b, where)
	g.until(at+g.between(100*time.Millisecond, 6*time.Second), "heal %s %s%s", a, b, where)
}

func (g *generator) isolate(at time.Duration) {
	a, _ := g.two()
	where, heal := g.where(), at+g.between(100*time.Millisecond, 6*time.Second)
	for _, b := range g.processes[:min(len(g.processes), 12)] {
		if a != b {
			g.p.add(at, "cut %s %s%s", a, b, where)
			g.until(heal, "heal %s %s%s", a, b, where)
		}
	}
}

func (g *generator) flap(at time.Duration) {
	a, b := g.two()
	where := g.where()
	for range 3 + g.rand.IntN(6) {
		g.until(at, "cut %s %s%s", a, b, where)
		at += g.between(20*time.Millisecond, 300*time.Millisecond)
		g.until(at, "heal %s %s%s", a, b, where)
		at += g.between(20*time.Millisecond, 300*time.Millisecond)
	}
}

func (g *generator) reset(at time.Duration) {
	n := pick(g, g.networks...)
	if n.kind == "ordered" {
		a, b := g.two()
		g.p.add(at, "break %s %s on=%s", a, b, n.name)
	}
}

func (g *generator) kill(at time.Duration) { g.down("kill", at) }
func (g *generator) stop(at time.Duration) { g.down("stop", at) }

// down ends a process, for a while or for good; the first one always comes back.
func (g *generator) down(verb string, at time.Duration) {
	a, _ := g.two()
	g.p.add(at, "%s %s", verb, a)
	if a == g.processes[0] || g.chance(0.6) {
		g.p.add(min(at+g.between(50*time.Millisecond, 3*time.Second), g.busy), "start %s", a)
	} else if _, ok := g.ends[a]; !ok || at < g.ends[a] {
		g.ends[a] = at
	}
}

func (g *generator) freeze(at time.Duration) {
	a, _ := g.two()
	g.p.add(at, "freeze %s", a)
	g.until(at+g.between(200*time.Millisecond, 6*time.Second), "thaw %s", a)
}

func (g *generator) slow(at time.Duration) {
	a, _ := g.two()
	g.p.add(at, "slow %s each=%v", a, pick(g, 5*time.Millisecond, 50*time.Millisecond))
	g.until(at+g.between(200*time.Millisecond, 3*time.Second), "slow %s each=0s", a)
}

func (g *generator) databaseAway(at time.Duration) {
	g.p.add(at, "database main %s", pick(g, "refuses", "hangs", "forgets"))
	g.until(at+g.between(200*time.Millisecond, 6*time.Second), "database main here")
}

func (g *generator) databaseOld(at time.Duration) {
	at = max(at, 500*time.Millisecond)
	if g.keysMove || g.chance(0.5) {
		g.p.add(at, "database main lag age=%v for=%v", g.between(250*time.Millisecond, 2*time.Second), g.between(500*time.Millisecond, 3*time.Second))
		return
	}
	g.restored = true
	g.p.add(at, "database main failover age=%v", g.between(250*time.Millisecond, 3*time.Second))
}

func (g *generator) brokerDown(at time.Duration) {
	n := pick(g, g.networks...)
	if n.kind == "broker" {
		g.p.add(at, "broker %s down", n.name)
		g.until(at+g.between(100*time.Millisecond, 4*time.Second), "broker %s up", n.name)
	}
}

func (g *generator) rotate(at time.Duration) {
	if g.restored {
		return
	}
	g.keysMove = true
	g.p.add(at, "rotate %s overlap=%v again=%v suite=%s", pick(g, g.sites...), g.p.MissedAfter+pick(g, time.Second, 5*time.Second),
		pick(g, 0, 0, 2*time.Second), pick(g, "same", "ghash", "aes", "hmac"))
}

func (g *generator) revoke(at time.Duration) {
	if !g.revoked && !g.restored {
		g.revoked, g.keysMove = true, true
		g.p.add(at, "revoke %s", pick(g, g.sites...))
	}
}

func (g *generator) clone(at time.Duration) {
	a, _ := g.two()
	g.p.add(at, "clone %s", a)
}

func (g *generator) replay(at time.Duration) {
	a, _ := g.two()
	g.p.add(at, "replay %s", a)
}
