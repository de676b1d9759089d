package history

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// never is later than everything: a time that has not come.
const never = time.Duration(math.MaxInt64)

// aftermath is how long a fault may show after it has ended: calls of the site
// database that hang, connections that are made again.
const aftermath = 6 * time.Second

// A Checker takes the records of one history in the order of their times and
// says in the end whether the promise was kept. It is not safe for concurrent
// use. Make it with [NewChecker].
type Checker struct {
	settle time.Duration
	repair Repair

	now       time.Duration
	instances []*instance // in the order of their first record
	byName    map[string]*instance
	streams   map[Stream]*stream
	last      *instance // of the record before

	faults  int           // that last
	faultAt time.Duration // when the last one began or ended; -1 before the first
	calm    time.Duration
	verdict Verdict
}

// An instance is one run of one process: it raises, and it is told.
type instance struct {
	name    string
	site    string
	accepts []string

	opening, inStep, enabled time.Duration
	over                     time.Duration // Shutdown or Close began, or it was killed
	ended                    time.Duration // nothing may be told from here on
	silentEnd                bool          // it ended without a goodbye that others can know of
	quiet                    bool          // no fault lasted while it came into step
	frozen                   bool
	thawed                   time.Duration            // last time; 0: never
	subscribed               map[string]time.Duration // by event

	events  []event   // by number
	streams []*stream // of those whose first number is known, ascending by it

	told     map[*instance]*ledger // by who raised
	merged   []Record              // reports that only give a number
	unplaced []Record              // exact reports about streams of which nothing else is known yet
}

// An event is one raise.
type event struct {
	name     string
	ordered  bool
	accepted bool
	doubtful bool // two processes speak in its stream
	sum      uint64
	raised   time.Duration // when Raise was called
	left     time.Duration // when it got its number; never: not recorded
	seen     time.Duration // when it was first Raised anywhere
}

// A stream is a run of numbers that belongs to one instance.
type stream struct {
	id        Stream
	run       *instance // nil: not known yet
	first     uint64    // the number that the event with ordinal 0 has at run; once run is known
	contested time.Duration
	erased    time.Duration
}

// NewChecker returns a Checker by which every event must be settled within
// settle after it was raised and faults have stopped.
func NewChecker(settle time.Duration) *Checker {
	return &Checker{
		settle: settle, byName: map[string]*instance{}, streams: map[Stream]*stream{},
		faultAt: -1, calm: never, verdict: Verdict{Reasons: map[string]uint64{}},
	}
}

// Repair says what must be repaired and not only be told as missed. The zero Repair
// says nothing.
type Repair struct {
	// Within is how long after faults have stopped a gap may take to be repaired
	// by its sender, and Left by those whom a killed sender has left behind. 0 says
	// nothing of either.
	Within, Left time.Duration

	// Evicts says that senders keep so little that they may have to say that
	// something is gone.
	Evicts bool
}

// Expect has c hold events told as missed against what had to be repaired.
func (c *Checker) Expect(r Repair) { c.repair = r }

// Check judges a whole history.
func Check(records []Record, settle time.Duration) Verdict {
	c := NewChecker(settle)
	for i := range records {
		c.Add(&records[i])
	}
	return c.Verdict()
}

// Add takes the next record. It does not keep r.
func (c *Checker) Add(r *Record) {
	if r.At < c.now {
		c.malformed(r, "is older than the one before")
	}
	c.now = max(c.now, r.At)
	switch r.Kind {
	case Fault:
		c.faults++
		c.faultAt = c.now
		return
	case Mended:
		c.faults--
		c.faultAt = c.now
		return
	case Calm:
		c.calm = c.now
		return
	case End:
		return
	case Cloned:
		c.stream(r.Stream).contested = c.now
		return
	case Erased:
		c.stream(r.Stream).erased = min(c.stream(r.Stream).erased, c.now)
		return
	}
	if r.Instance == "" {
		c.malformed(r, "names no instance")
		return
	}
	in := c.instance(r.Instance)
	if in.ended != never {
		c.violate(Ended, in, r, nil, 0, "after it had ended: "+string(r.Kind))
		return
	}
	c.addTo(in, r)
}

func (c *Checker) addTo(in *instance, r *Record) {
	switch r.Kind {
	case Opening:
		in.opening, in.site, in.accepts = c.now, r.Site, slices.Clone(r.Accepts)
	case Opened:
		in.inStep = c.now
		in.quiet = c.faults == 0 && (c.faultAt < 0 || c.faultAt+aftermath < in.opening)
		if s := c.stream(r.Stream); r.Stream != (Stream{}) && s.run == nil && s.contested == never {
			c.place(s, in, 0) // a stream that begins with the instance begins with its first event
		}
	case Enabled:
		in.enabled = c.now
	case Subscribed:
		if _, ok := in.subscribed[r.Event]; !ok {
			in.subscribed[r.Event] = c.now
		}
	case Shutdown:
		in.over = min(in.over, c.now)
	case Closed:
		in.over, in.ended, in.silentEnd = min(in.over, c.now), c.now, !r.Clean
	case Killed:
		in.over, in.ended, in.silentEnd = min(in.over, c.now), c.now, true
	case Frozen:
		in.frozen = true
	case Thawed:
		in.frozen, in.thawed = false, c.now
	case Raise, Accepted, Refused, Sent:
		c.raise(in, r)
	case Raised:
		c.raised(in, r)
	case Missed:
		c.missed(in, r)
	case InDoubt:
		c.verdict.InDoubt++
	case Renumbered:
		// Which event comes first in it shows when one of them is Raised.
	default:
		c.malformed(r, fmt.Sprintf("is of the unknown kind %q", r.Kind))
	}
}

// raise takes what an instance says of its own raises.
func (c *Checker) raise(in *instance, r *Record) {
	n := uint64(len(in.events))
	switch {
	case r.Kind == Raise && r.Seq == n:
		in.events = append(in.events, event{
			name: r.Event, ordered: r.Ordered, sum: r.Sum, raised: c.now, left: never, seen: never,
		})
	case r.Kind == Accepted && r.Seq < n:
		in.events[r.Seq].accepted = true
		c.verdict.Raises++
	case r.Kind == Refused && r.Seq == n-1 && !in.events[r.Seq].accepted:
		if in.events[r.Seq].seen != never {
			c.violate(Phantom, in, r, in, r.Seq, "Raise failed, and it was Raised elsewhere")
		}
		in.events = in.events[:r.Seq]
	case r.Kind == Sent && r.Seq+r.Count <= n:
		s := c.stream(r.Stream)
		switch {
		case s.contested != never:
		case s.run == nil:
			c.place(s, in, r.Seq-r.Ordinal)
		case s.run != in || s.first+r.Ordinal != r.Seq:
			c.violate(Numbering, in, r, in, r.Seq, "its stream numbered it otherwise before")
		}
		for i := range in.events[r.Seq : r.Seq+r.Count] {
			e := &in.events[r.Seq+uint64(i)]
			e.left, e.doubtful = c.now, s.contested != never
		}
	default:
		c.malformed(r, fmt.Sprintf("is about event %d, when %d are raised", r.Seq, n))
	}
}

// raised takes that a subscriber of in was called.
func (c *Checker) raised(in *instance, r *Record) {
	if r.Stream == (Stream{}) {
		return // raised by in itself, which is no matter of the protocol
	}
	c.verdict.Raised++
	from := c.byName[r.From]
	switch {
	case from == nil || r.Seq >= uint64(len(from.events)):
		c.violate(Phantom, in, r, from, r.Seq, fmt.Sprintf("nobody raised event %d of %q", r.Seq, r.From))
		return
	case from == in:
		c.violate(Twice, in, r, from, r.Seq, "its own event came back")
		return
	case !in.hears(from):
		c.violate(Phantom, in, r, from, r.Seq, fmt.Sprintf("it does not accept site %q", from.site))
		return
	}
	e := &from.events[r.Seq]
	e.seen = min(e.seen, c.now)
	if e.name != r.Event || e.sum != r.Sum {
		c.violate(Payload, in, r, from, r.Seq, fmt.Sprintf("told of event %q with payload %x, raised was %q with %x", r.Event, r.Sum, e.name, e.sum))
	}
	s := c.stream(r.Stream)
	switch {
	case s.contested != never:
	case s.run == nil && r.Seq >= r.Ordinal:
		c.place(s, from, r.Seq-r.Ordinal)
	case s.run != from || s.first+r.Ordinal != r.Seq:
		c.violate(Numbering, in, r, from, r.Seq, "its number does not fit those of the same stream")
	}
	if c.now < in.enabled {
		c.violate(Early, in, r, from, r.Seq, "it has not enabled dispatch")
	}
	c.tell(in, from, r.Seq, wasRaised, r)
}

// missed takes that a subscriber of in was told of misses.
func (c *Checker) missed(in *instance, r *Record) {
	c.verdict.Missed += r.Count
	c.verdict.Reasons[r.Reason] += r.Count
	if c.now < in.enabled {
		c.violate(Early, in, r, nil, 0, "it has not enabled dispatch")
	}
	if r.merged() {
		in.merged = append(in.merged, *r)
		return
	}
	s := c.stream(r.Stream)
	switch {
	case s.contested != never:
	case s.run == nil:
		in.unplaced = append(in.unplaced, *r)
	default:
		c.tellMissed(in, s, r)
	}
}

func (c *Checker) tellMissed(in *instance, s *stream, r *Record) {
	if !in.hears(s.run) {
		c.violate(Phantom, in, r, s.run, s.first+r.First, fmt.Sprintf("it does not accept site %q", s.run.site))
		return
	}
	first, end := s.first+r.First, s.first+r.Last+1
	if n := uint64(len(s.run.events)); end > n {
		c.violate(Phantom, in, r, s.run, n, "missed what was not raised")
		end = n
	}
	for seq := first; seq < end; seq++ {
		c.tell(in, s.run, seq, wasMissed, r)
	}
}

// instance returns the one named, and makes it at its first record.
func (c *Checker) instance(name string) *instance {
	if c.last != nil && c.last.name == name {
		return c.last
	}
	in := c.byName[name]
	if in == nil {
		in = &instance{name: name, opening: never, inStep: never, enabled: never, over: never, ended: never,
			subscribed: map[string]time.Duration{}, told: map[*instance]*ledger{}}
		c.byName[name] = in
		c.instances = append(c.instances, in)
	}
	c.last = in
	return in
}

func (c *Checker) stream(id Stream) *stream {
	s := c.streams[id]
	if s == nil {
		s = &stream{id: id, contested: never, erased: never}
		c.streams[id] = s
	}
	return s
}

// place records that the stream begins with an event of in.
func (c *Checker) place(s *stream, in *instance, first uint64) {
	s.run, s.first = in, first
	i, _ := slices.BinarySearchFunc(in.streams, first+1, func(s *stream, first uint64) int {
		return int(int64(s.first) - int64(first))
	})
	in.streams = slices.Insert(in.streams, i, s)
}

// streamOf returns the stream in which event seq of in went, or nil if that is
// not known.
func (in *instance) streamOf(seq uint64) *stream {
	for i := len(in.streams) - 1; i >= 0; i-- {
		if in.streams[i].first <= seq {
			return in.streams[i]
		}
	}
	return nil
}

// hears reports whether in takes part in the events of another.
func (in *instance) hears(from *instance) bool {
	return in.site == from.site || slices.Contains(in.accepts, from.site) || slices.Contains(in.accepts, "*")
}

// since returns from when on in must be told of an event: from the return of
// OnRaised or from in step, whichever is later.
func (in *instance) since(name string) time.Duration {
	at := never
	for _, n := range [...]string{name, ""} {
		if t, ok := in.subscribed[n]; ok {
			at = min(at, t)
		}
	}
	return max(at, in.inStep)
}

// isOut returns when e, an event of in, was certainly on its way: when it got its number,
// or, where that was not recorded, when Raise was called and the instance enabled.
func (in *instance) isOut(e *event) time.Duration {
	switch {
	case e.left != never:
		return e.left
	case in.enabled != never:
		return max(e.raised, in.enabled)
	}
	return e.raised
}

func (c *Checker) malformed(r *Record, why string) {
	c.verdict.add(Violation{Rule: Malformed, At: r.At, Instance: r.Instance, Note: fmt.Sprintf("the record %q %s", r.Kind, why)})
}

func (c *Checker) violate(rule Rule, in *instance, r *Record, from *instance, seq uint64, note string) {
	v := Violation{Rule: rule, At: r.At, Instance: in.name, Seq: seq, Stream: r.Stream, Ordinal: r.Ordinal, Note: note}
	if r.Kind == Missed {
		v.Ordinal = r.First
	}
	if from != nil {
		v.From = from.name
	}
	c.verdict.add(v)
}
