package providertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
)

// A problem is a sentence of the contract and how it was broken.
type problem struct {
	rule   string
	detail string
}

func (p problem) String() string { return p.detail + "\n\tthe rule: " + p.rule }

// errGiveUp ends a check that cannot go on; its problems say why.
var errGiveUp = errors.New("providertest: check given up")

// A check is one run of one entry of the table of checks.
type check struct {
	tb      testing.TB
	rule    string // the sentence that is checked
	network *Network
	caps    provider.Capabilities // of the first Provider
	id      uint64                // of the network, in all its frames

	eps     []*Endpoint // by index of Network.Providers; started by start
	numbers map[lane]uint64
	sent    map[frameID]bool // true: as it is claimed to arrive; guarded by mu, as problems are
	garbage bool             // strangers wrote to the transport, so anything may arrive

	mu       sync.Mutex
	problems []problem
	floods   map[string]int // how many details a rule has; the rest is only counted
}

type lane struct {
	sender int
	lane   byte
}

// problems runs fn on a fresh network of n Providers and returns what is wrong,
// with everything that the suite watches in every check.
func (r entry) problems(tb testing.TB, h Harness) []problem {
	network := h.Network(tb, r.endpoints)
	if len(network.Providers) != r.endpoints {
		tb.Fatalf("the harness made %d providers, not the %d asked for", len(network.Providers), r.endpoints)
	}
	c := &check{
		tb:      tb,
		rule:    r.rule,
		network: network.withDefaults(),
		caps:    network.Providers[0].Capabilities(),
		id:      rand.Uint64(),
		numbers: make(map[lane]uint64),
		sent:    make(map[frameID]bool),
		floods:  make(map[string]int),
	}
	for _, p := range network.Providers {
		e := NewEndpoint(tb, p, provider.Env{Route: c.network.Route})
		c.eps = append(c.eps, e)
	}
	before := goroutines()
	c.protect(func() { r.fn(c) })
	c.protect(c.closeAll)
	c.protect(c.examine)
	for _, stack := range leaked(before, c.network.IgnoreGoroutine, c.network.Patience) {
		c.breaks(ruleLeak, "a goroutine still runs after Close of every provider:\n\t\t%s", strings.ReplaceAll(stack, "\n", "\n\t\t"))
	}
	for rule, n := range c.floods {
		if n > maxDetails {
			c.problems = append(c.problems, problem{rule, fmt.Sprintf("and %d more like it", n-maxDetails)})
		}
	}
	return c.problems
}

// protect runs fn until it ends or gives up.
func (c *check) protect(fn func()) {
	defer func() {
		if p := recover(); p != nil && p != errGiveUp {
			panic(p)
		}
	}()
	fn()
}

const maxDetails = 3 // per rule; what follows is counted

// breaks records a problem with a rule. It may be called by any goroutine.
func (c *check) breaks(rule, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floods[rule]++
	if c.floods[rule] <= maxDetails {
		c.problems = append(c.problems, problem{rule, fmt.Sprintf(format, args...)})
	}
}

// errorf records a problem with the rule that is checked.
func (c *check) errorf(format string, args ...any) { c.breaks(c.rule, format, args...) }

// fatalf is errorf for what makes the rest of the check meaningless. It is called by
// the goroutine of the check alone.
func (c *check) fatalf(format string, args ...any) {
	c.errorf(format, args...)
	panic(errGiveUp)
}

// start starts the endpoints given, all if none is, and introduces all that run.
func (c *check) start(which ...int) {
	if len(which) == 0 {
		for i := range c.eps {
			which = append(which, i)
		}
	}
	for _, i := range which {
		if err := c.within("Start", func() error { return c.eps[i].Start(c.tb.Context()) }); err != nil {
			c.fatalf("Start of provider %d: %v", i, err)
		}
	}
	c.introduce()
}

// introduce tells all endpoints of those that run.
func (c *check) introduce() {
	Introduce(slices.DeleteFunc(slices.Clone(c.eps), func(e *Endpoint) bool { return !e.started() || e.closed.Load() })...)
}

// meet sends probes until everyone has heard everyone. A transport that connects after
// it has been told of the members is connected then.
func (c *check) meet() { c.meetAmong(c.all()...) }

func (c *check) all() []int {
	var all []int
	for i := range c.eps {
		all = append(all, i)
	}
	return all
}

func (c *check) meetAmong(which ...int) {
	deadline := time.Now().Add(c.network.Patience)
	for {
		var missing []string
		for _, from := range which {
			probe := c.frame(from, laneProbe, smallFrame)
			err := c.send(from, probe)
			for _, to := range which {
				if from != to && !c.heardProbe(to, from) {
					missing = append(missing, fmt.Sprintf("%d from %d (last error of Send: %v)", to, from, err))
				}
			}
		}
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			c.fatalf("%v after Start and SetMembers nothing was delivered to %s", c.network.Patience, strings.Join(missing, "; "))
		}
	}
}

// heardProbe reports whether a probe of from reaches to soon.
func (c *check) heardProbe(to, from int) bool {
	return c.eps[to].wait(c.network.Settle, func() bool {
		return slices.ContainsFunc(c.eps[to].frames, func(f []byte) bool {
			id, ok := parseFrame(f)
			return ok && id.network == c.id && id.lane == laneProbe && int(id.sender) == from
		})
	})
}

// frame makes the next frame of endpoint from in a lane.
func (c *check) frame(from int, l byte, size int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := lane{from, l}
	c.numbers[k]++
	id := frameID{c.id, uint16(from), l, c.numbers[k], uint32(max(size, frameHeaderLen))}
	c.sent[id] = l != laneLoose && l != laneProbe
	return id.bytes()
}

// frames makes n of them.
func (c *check) frames(from int, l byte, n, size int) [][]byte {
	fs := make([][]byte, n)
	for i := range fs {
		fs[i] = c.frame(from, l, size)
	}
	return fs
}

// send sends through the endpoint from and returns the error. A Send that does not return
// is a problem.
func (c *check) send(from int, frames ...[]byte) error {
	ctx, cancel := context.WithTimeout(c.tb.Context(), c.network.Patience)
	defer cancel()
	return c.within("Send", func() error { return c.eps[from].Provider.Send(ctx, frames) })
}

// within runs fn in a goroutine of its own and gives the check up when it does not return.
func (c *check) within(what string, fn func() error) error {
	result := make(chan error, 1)
	go func() { result <- fn() }()
	timeout := time.NewTimer(2 * c.network.Patience)
	defer timeout.Stop()
	select {
	case err := <-result:
		return err
	case <-timeout.C:
		c.fatalf("%s did not return within %v", what, 2*c.network.Patience)
		return nil
	}
}

// carry sends frames in one batch and waits until they have arrived at the
// endpoints given, all others if none is. On a lossy transport it sends again
// what did not.
func (c *check) carry(from int, frames [][]byte, to ...int) {
	if len(to) == 0 {
		to = slices.DeleteFunc(c.all(), func(i int) bool { return i == from || c.eps[i].closed.Load() })
	}
	c.carryWith(from, frames, to, func(frames [][]byte) error { return c.send(from, frames...) })
}

func (c *check) carryWith(from int, frames [][]byte, to []int, send func([][]byte) error) {
	awaited := make(map[int]*awaited, len(to))
	for _, i := range to {
		awaited[i] = c.await(i, frames)
		defer awaited[i].stop()
	}
	if err := send(frames); err != nil {
		c.errorf("sending %d frames from provider %d: %v", len(frames), from, err)
		return
	}
	if !c.network.Lossy {
		for _, i := range to {
			c.arrived(awaited[i], from)
		}
		return
	}
	deadline := time.Now().Add(c.network.Patience)
	for {
		missing := make(map[string]bool)
		for _, i := range to {
			for _, f := range awaited[i].missing(c.network.Settle) {
				missing[string(f)] = true
			}
		}
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			c.errorf("%d of %d frames sent again and again from provider %d did not arrive everywhere", len(missing), len(frames), from)
			return
		}
		var again [][]byte
		for _, f := range frames {
			if missing[string(f)] {
				c.loosen(f)
				again = append(again, f)
			}
		}
		// In small batches: whatever was too much at once is the transport's business.
		for part := range slices.Chunk(again, 32) {
			if err := send(part); err != nil {
				c.errorf("sending %d frames again from provider %d: %v", len(part), from, err)
				return
			}
		}
	}
}

// arrived waits for what is awaited and says what did not come.
func (c *check) arrived(a *awaited, from int) {
	if missing := a.missing(c.network.Patience); len(missing) > 0 {
		id, _ := parseFrame(missing[0])
		c.errorf("%d of %d frames sent by provider %d did not arrive at provider %d within %v, the first of them number %d with %d bytes",
			len(missing), a.total, from, a.at, c.network.Patience, id.number, id.size)
	}
}

// loosen says that no claim holds for frame any more, because it is sent again.
func (c *check) loosen(frame []byte) {
	if id, ok := parseFrame(frame); ok {
		c.mu.Lock()
		c.sent[id] = false
		c.mu.Unlock()
	}
}

// lossOf returns how many of n frames the transport may lose although nothing is wrong.
func (c *check) lossOf(n int) int {
	if c.network.Lossy {
		return n - 1
	}
	return 0
}

// awaited is a set of frames that an endpoint has yet to hear.
type awaited struct {
	e     *Endpoint
	at    int
	total int
	want  map[string][]byte // guarded by e.mu
}

// await begins to watch for frames at endpoint i; one such watch per endpoint is
// possible at a time.
func (c *check) await(i int, frames [][]byte) *awaited {
	a := &awaited{e: c.eps[i], at: i, total: len(frames), want: make(map[string][]byte, len(frames))}
	for _, f := range frames {
		a.want[string(f)] = f
	}
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	a.e.tally = func(f []byte) { delete(a.want, string(f)) }
	return a
}

// missing waits until all have arrived, for patience at most, and returns those that have not.
func (a *awaited) missing(patience time.Duration) [][]byte { return a.missingBut(0, patience) }

// missingBut is missing that is content when all but so many have arrived.
func (a *awaited) missingBut(loss int, patience time.Duration) [][]byte {
	if a.e.wait(patience, func() bool { return len(a.want) <= loss }) {
		return nil
	}
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	var missing [][]byte
	for _, f := range a.want {
		missing = append(missing, f)
	}
	slices.SortFunc(missing, bytes.Compare) // by number
	return missing
}

func (a *awaited) stop() {
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	a.e.tally = nil
}

// quiet waits for what must not happen.
func (c *check) quiet() {
	settle := time.NewTimer(c.network.Settle)
	defer settle.Stop()
	<-settle.C
}

// closeAll closes every provider that is not closed yet.
func (c *check) closeAll() {
	for i, e := range c.eps {
		e.OnBatch(nil)
		if e.closed.Load() {
			continue
		}
		if err := c.within(fmt.Sprintf("Close of provider %d", i), e.Close); err != nil {
			c.breaks(ruleClose, "Close of provider %d: %v", i, err)
		}
	}
}

// examine looks at everything that was delivered during the check for what must hold always.
func (c *check) examine() {
	c.mu.Lock()
	sent := maps.Clone(c.sent)
	c.mu.Unlock()
	for i, e := range c.eps {
		e.mu.Lock()
		frames, late, overlapping := slices.Clone(e.frames), e.late, len(e.overlapping)
		e.mu.Unlock()

		if late > 0 {
			c.breaks(ruleClose, "provider %d called Deliver, Disconnected or Reconnected %d times after its Close had returned", i, late)
		}
		if overlapping > 0 {
			c.breaks(ruleSerial, "provider %d ran two Delivers at once for each of %d addresses", i, overlapping)
		}
		times := make(map[frameID]int)
		last := make(map[lane]uint64)
		for _, f := range frames {
			id, ok := parseFrame(f)
			if !ok || id.network != c.id {
				if !c.garbage {
					c.breaks(ruleBytes, "provider %d delivered %d bytes that nobody sent, or changed them afterwards", i, len(f))
				}
				continue
			}
			claimed, known := sent[id]
			if !known {
				if !c.garbage {
					c.breaks(ruleBytes, "provider %d delivered frame %d of provider %d, which was never sent", i, id.number, id.sender)
				}
				continue
			}
			if int(id.sender) == i && !c.caps.Echoes {
				c.breaks(ruleEchoes, "provider %d does not claim Echoes and heard its own frame %d", i, id.number)
			}
			if !claimed {
				continue
			}
			if times[id]++; times[id] == 2 && !c.caps.Redelivers {
				c.breaks(ruleRedelivers, "provider %d does not claim Redelivers and delivered frame %d of provider %d twice", i, id.number, id.sender)
			}
			k := lane{int(id.sender), id.lane}
			if c.caps.Ordered && times[id] == 1 {
				if id.number < last[k] {
					c.breaks(ruleOrdered, "provider %d claims Ordered and delivered frame %d of provider %d after frame %d", i, id.number, id.sender, last[k])
				}
				last[k] = id.number
			}
		}
	}
}
