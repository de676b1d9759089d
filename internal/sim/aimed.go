package sim

import "time"

// aim makes a plan in which everything hangs on one mechanism. Faults at random hit
// the moment too rarely at which nothing else could stand in for it.
func (g *generator) aim() {
	g.lively = true
	g.busy = max(g.busy, 6*time.Second)
	g.p.MissedAfter = 10 * time.Second
	targets := []func(){g.aimAtOrphans, g.aimAtEviction, g.aimAtRows, g.aimAtReset, g.aimAtUnsent, g.aimAtOverlap, g.aimAtTail}
	targets[g.rand.IntN(len(targets))]()
}

// moment returns when the aim is taken: everybody is in step by then.
func (g *generator) moment() time.Duration { return g.between(2*time.Second, g.busy-3*time.Second) }

// Of a killed sender's last events only some have heard: they reveal and repair them.
func (g *generator) aimAtOrphans() {
	g.kind = pick(g, "datagram", "ordered")
	g.cluster()
	if len(g.processes) < 3 {
		g.kill(g.moment())
		return
	}
	a, b := g.two()
	for a == g.processes[0] {
		a, b = g.two()
	}
	at := g.busy - 500*time.Millisecond
	for _, p := range g.processes { // b does not even hear what the others acknowledge
		if p != b {
			g.p.add(at, "cut %s %s", p, b)
		}
	}
	g.p.add(at+10*time.Millisecond, "raise %s n=%d every=1ms", a, 1+g.rand.IntN(5))
	g.p.add(at+300*time.Millisecond, "kill %s", a)
	g.ends[a] = at
}

// A sender keeps less than a receiver missed, and says so.
func (g *generator) aimAtEviction() {
	g.p.RingBytes, g.p.RingFrames = 64<<10, 8
	g.kind = "datagram"
	g.cluster()
	a, b := g.two()
	at := g.moment()
	g.p.add(at, "cut %s %s", a, b)
	g.p.add(at+10*time.Millisecond, "raise %s n=30 every=5ms size=1000", a)
	if g.chance(0.5) {
		g.until(g.busy-time.Millisecond, "heal %s %s", a, b)
	}
}

// Nobody speaks while idle, so what was lost last shows in member rows alone.
func (g *generator) aimAtRows() {
	g.kind, g.mute = "datagram", true
	g.p.Lease = pick(g, 3*time.Second, 6*time.Second)
	g.cluster()
	a, b := g.two()
	g.p.add(g.busy-3*time.Second, "cut %s %s one-way", a, b)
	g.p.add(g.busy-2900*time.Millisecond, "raise %s n=3", a)
	g.ends[a] = g.busy - 3*time.Second
}

// An instance stands still until its row is reaped; what it said last was lost,
// and only its new stream tells of it.
func (g *generator) aimAtReset() {
	g.kind = "datagram"
	g.p.Lease, g.busy = time.Second, 9*time.Second
	g.cluster()
	a, b := g.two()
	at := g.between(2*time.Second, 3*time.Second)
	g.p.add(at, "cut %s %s", a, b)
	g.p.add(at+10*time.Millisecond, "raise %s n=4", a)
	g.p.add(at+20*time.Millisecond, "freeze %s", a)
	g.p.add(at+30*time.Millisecond, "heal %s %s", a, b)
	g.ends[a] = at
}

// Events wait to be sent when an instance must take a new stream.
func (g *generator) aimAtUnsent() {
	g.kind = "broker"
	g.cluster()
	a, _ := g.two()
	at := g.moment()
	g.p.add(at, "broker n1 down")
	g.p.add(at+10*time.Millisecond, "raise %s n=20 every=20ms", a)
	g.p.add(at+300*time.Millisecond, "revoke %s", g.sites[0])
	g.keysMove, g.revoked = true, true
	g.until(at+2*time.Second, "broker n1 up")
}

// Frames are repaired after the key they were sealed with was replaced.
func (g *generator) aimAtOverlap() {
	g.kind = "datagram"
	g.p.Poll = 200 * time.Millisecond
	g.cluster()
	a, b := g.two()
	at := g.busy - 3*time.Second
	g.p.add(at, "cut %s %s", a, b)
	g.p.add(at+10*time.Millisecond, "raise %s n=5 every=1ms", a)
	for _, s := range g.sites {
		g.p.add(at+20*time.Millisecond, "rotate %s overlap=%v", s, g.p.MissedAfter+5*time.Second)
	}
	g.keysMove = true
}

// The last event before silence is lost, and so are the first heartbeats after it.
func (g *generator) aimAtTail() {
	g.kind = "datagram"
	g.p.Lease = 2 * time.Minute // so that rows do not tell of it
	g.cluster()
	g.p.add(g.busy-200*time.Millisecond, "weather n1 loss=1")
	for _, name := range g.processes[:2] {
		g.p.add(g.busy-190*time.Millisecond, "raise %s n=2", name)
	}
}
