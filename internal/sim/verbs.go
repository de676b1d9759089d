package sim

import (
	"time"

	"github.com/carillon-go/carillon/internal/history"
)

// verbs are what a plan can ask for. Words in capitals are to be filled in; those
// with = may be left out. A verb about an instance that is down does nothing.
var verbs = map[string]func(*arguments){
	"database": doDatabase, // database NAME latency=2ms | database NAME here|refuses|hangs|forgets | database NAME failover age=2s | database NAME lag age=1s for=2s
	"site":     doSite,     // site NAME database=main suite=ghash|hmac|aes
	"network":  doNetwork,  // network NAME datagram|ordered|broker delay= jitter= frame-bytes= window= reorder-delay= idle= again= shared-loss to-all
	"weather":  doWeather,  // weather NAME loss= shared= burst= double= corrupt= reorder=
	"process":  doProcess,  // process NAME site=shop database=main on=net1,net2 enable=0s
	"start":    func(a *arguments) { a.start() },
	"stop":     func(a *arguments) { a.with(func(in *instance) { in.shutdown() }) },
	"kill":     func(a *arguments) { a.with(func(in *instance) { in.kill() }) },
	"freeze":   doFreeze,
	"thaw":     doThaw,
	"clone":    doClone,  // clone NAME: another process with the memory that NAME had when it was in step
	"raise":    doRaise,  // raise NAME n=1 every=0s size=100 event=e ordered
	"slow":     doSlow,   // slow NAME each=10ms: how long the subscriber takes
	"cut":      doCut,    // cut A B one-way on=net
	"heal":     doHeal,   // heal A B one-way on=net
	"break":    doBreak,  // break A B on=net: the connection is reset
	"broker":   doBroker, // broker NAME down|up
	"rotate":   doRotate, // rotate SITE overlap=15s suite=aes again=0s
	"revoke":   doRevoke, // revoke SITE: every key is compromised
	"replay":   doReplay, // replay NAME: everything that was ever sent arrives there again
	"calm":     func(a *arguments) { a.w.calm() },
	"frames":   func(a *arguments) { a.w.frames = a.word(0) == "on" },
	"status":   func(a *arguments) { a.w.status() },
}

// do carries out one line.
func (w *world) do(line string) {
	a := newArguments(w, line)
	verb := firstWord(line)
	v := verbs[verb]
	if v == nil {
		a.fail("there is no verb %q", verb)
		return
	}
	v(a)
}

// with calls do if the process named first is up and not frozen.
func (a *arguments) with(do func(*instance)) {
	if in := a.running(0); in != nil {
		in.now(func() { do(in) })
	}
}

func (a *arguments) start() {
	if p := a.process(0); p != nil && p.run == nil {
		p.boot()
	}
}

func doDatabase(a *arguments) {
	if a.word(1) == "" {
		a.w.addDatabase(a.word(0), a.duration("latency", 2*time.Millisecond))
		return
	}
	d := a.database(0)
	if d == nil {
		return
	}
	was := d.away
	switch a.word(1) {
	case "here":
		d.away = here
	case "refuses":
		d.away = refuses
	case "hangs":
		d.away = hangs
	case "forgets":
		d.away = forgets
	case "failover":
		a.w.fault("database %s fails over", d.name)
		d.failOver(a.duration("age", 2*time.Second))
	case "lag":
		a.w.fault("database %s lags", d.name)
		d.lag(a.duration("age", time.Second), a.duration("for", 2*time.Second))
	default:
		a.fail("no such state")
	}
	switch {
	case was == here && d.away != here:
		a.w.fault("database %s is away", d.name)
	case was != here && d.away == here:
		a.w.mended("database %s is away", d.name)
	}
}

func doSite(a *arguments) {
	suite := suites[a.text("suite", "hmac")]
	for _, d := range a.w.databases {
		if d.name == a.text("database", d.name) {
			d.store.addSite(a.w.newSite(a.word(0), suite))
			d.backups = nil // no replica is so far behind
			return
		}
	}
	a.fail("there is no such database")
}

func doNetwork(a *arguments) {
	w := a.w
	base := wires{
		w: w, name: a.word(0), random: w.random("network " + a.word(0)), frameBytes: a.number("frame-bytes", firstFrameBytes), window: a.number("window", 0),
		reorderDelay: a.duration("reorder-delay", 0), idle: a.duration("idle", 0), cuts: map[[2]*process]int{},
		sharedLoss: a.has("shared-loss"), toAll: a.has("to-all"),
	}
	delay, jitter := a.duration("delay", time.Millisecond), a.duration("jitter", time.Millisecond)
	var n network
	switch a.word(1) {
	case "datagram":
		n = &datagram{wires: base, weather: weather{delay: delay, jitter: jitter}, bad: map[[2]*process]bool{}}
	case "ordered":
		n = &ordered{wires: base, delay: delay, jitter: jitter, links: map[[2]*instance]*link{}}
	case "broker":
		base.toAll = true
		n = &broker{wires: base, delay: delay, jitter: jitter, again: a.float("again"), waiting: map[*instance][][]byte{}}
	default:
		a.fail("a network is datagram, ordered or broker")
		return
	}
	w.networks = append(w.networks, n)
}

func doWeather(a *arguments) {
	for _, n := range a.w.networks {
		d, ok := n.(*datagram)
		if !ok || d.name != a.word(0) {
			continue
		}
		was := d.weather.bad()
		d.loss, d.shared, d.burst, d.double = a.float("loss"), a.float("shared"), a.float("burst"), a.float("double")
		d.corrupt, d.reorder = a.float("corrupt"), a.float("reorder")
		switch now := d.weather.bad(); {
		case now && !was:
			a.w.fault("weather on %s", d.name)
		case was && !now:
			a.w.mended("weather on %s", d.name)
		}
	}
}

// bad reports whether frames may be lost or overtake each other by much.
func (x *weather) bad() bool {
	return x.loss+x.shared+x.burst+x.corrupt+x.reorder+x.double > 0
}

func doProcess(a *arguments) {
	w := a.w
	p := &process{w: w, name: a.word(0), enable: a.duration("enable", 0), networks: a.networks("on"), site: a.text("site", "")}
	for _, d := range w.databases {
		if d.name == a.text("database", d.name) && p.database == nil {
			p.database = d
		}
	}
	if p.database == nil || len(p.database.store.sites) == 0 {
		a.fail("no database, or no site in it")
		return
	}
	if p.site == "" {
		p.site = p.database.store.sites[0].Name
	}
	w.processes = append(w.processes, p)
}

func doFreeze(a *arguments) {
	if in := a.running(0); in != nil && !in.frozen {
		a.w.fault("%s is frozen", in.process.name)
		in.freeze()
	}
}

func doThaw(a *arguments) {
	if in := a.running(0); in != nil && in.frozen {
		in.thaw()
		a.w.mended("%s is frozen", in.process.name)
	}
}

func doClone(a *arguments) {
	a.with(func(in *instance) { in.clone() })
}

func doRaise(a *arguments) {
	n, every, p := a.number("n", 1), a.duration("every", 0), a.process(0)
	if p == nil {
		return
	}
	one := wish{event: a.text("event", "e"), size: a.number("size", 100), ordered: a.has("ordered")}
	for i := range n {
		if every == 0 {
			p.raise(one)
			continue
		}
		a.w.after(time.Duration(i)*every, func() { p.raise(one) })
	}
}

func doSlow(a *arguments) {
	a.with(func(in *instance) { in.handler = a.duration("each", 10*time.Millisecond) })
}

func doCut(a *arguments)  { a.cut(1) }
func doHeal(a *arguments) { a.cut(-1) }

func (a *arguments) cut(by int) {
	p, q := a.process(0), a.process(1)
	if p == nil || q == nil {
		return
	}
	for _, n := range a.networks("on") {
		if by < 0 && n.base().cuts[[2]*process{p, q}] == 0 {
			continue // calm has mended it
		}
		n.cut(p, q, by)
		if !a.has("one-way") {
			n.cut(q, p, by)
		}
		if note := "cut " + p.name + " " + q.name; by > 0 {
			a.w.fault("%s", note)
		} else {
			a.w.mended("%s", note)
		}
	}
}

func doBreak(a *arguments) {
	p, q := a.process(0), a.process(1)
	for _, n := range a.networks("on") {
		if o, ok := n.(*ordered); ok && p != nil && q != nil {
			a.w.fault("break %s %s", p.name, q.name)
			o.breakBetween(p, q)
			a.w.mended("break %s %s", p.name, q.name)
		}
	}
}

func doBroker(a *arguments) {
	for _, n := range a.w.networks {
		b, ok := n.(*broker)
		if !ok || b.name != a.word(0) {
			continue
		}
		switch {
		case a.word(1) == "down" && !b.down:
			a.w.fault("broker %s is down", b.name)
			b.down = true
		case a.word(1) == "up" && b.down:
			b.restart()
			a.w.mended("broker %s is down", b.name)
		}
	}
}

func doReplay(a *arguments) {
	a.with(func(in *instance) {
		n := in.process.networks[0].base()
		for _, f := range a.w.captured {
			n.deliver(in, f, time.Millisecond)
		}
	})
}

// calm ends every fault. Who is dead stays dead.
func (w *world) calm() {
	for _, d := range w.databases {
		d.away, d.staleUntil = here, 0
	}
	for _, n := range w.networks {
		clear(n.base().cuts)
		switch n := n.(type) {
		case *datagram:
			n.weather = weather{delay: n.delay, jitter: n.jitter}
			clear(n.bad)
		case *broker:
			n.again = 0
			n.flush()
			if n.down {
				n.restart()
			}
		}
	}
	for _, in := range w.instances {
		if in.dead {
			continue
		}
		in.handler = 0
		if in.frozen {
			in.thaw()
		}
	}
	w.record(history.Record{Kind: history.Calm})
}

func firstWord(line string) string {
	for i := range len(line) {
		if line[i] == ' ' {
			return line[:i]
		}
	}
	return line
}
