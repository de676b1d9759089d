package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-go/carillon/internal/history"
)

// A Plan is what happens in a run, and when. Its text form has one line for each
// thing: "seed N", "set NAME=VALUE …", and "[at TIME] VERB …", where TIME is 0 if it
// is left out; verbs.go says which verbs there are. Empty lines and those that begin
// with # are skipped.
type Plan struct {
	Seed uint64

	MissedAfter time.Duration
	Lease       time.Duration
	Poll        time.Duration
	SendTime    time.Duration // most that a network takes to say that it has accepted
	Idle        time.Duration // between heartbeats while idle, at most, on any network
	Mute        bool          // on some network there are none
	UnsentBytes int
	RingBytes   int
	RingFrames  int
	CacheBytes  int

	Actions []Action // ascending by time
	End     time.Duration

	within time.Duration // stands in for settle; 0: it does not
}

// An Action is a line of a plan.
type Action struct {
	At   time.Duration
	Line string
}

const (
	defaultRingBytes  = 32 << 20
	defaultRingFrames = 1 << 15
	defaultCacheBytes = 64 << 20
)

// defaults are those of package carillon.
func defaults(seed uint64) *Plan {
	return &Plan{
		Seed: seed, MissedAfter: 10 * time.Second, Lease: 30 * time.Second, Poll: time.Second, SendTime: time.Millisecond, Idle: time.Second,
		UnsentBytes: 8 << 20, RingBytes: defaultRingBytes, RingFrames: defaultRingFrames, CacheBytes: defaultCacheBytes,
	}
}

// settle returns how long after faults have stopped, or after it was raised, an
// event may be open: what it takes to notice it, which is longest for the last
// words of one who is dead and for one whose row nobody could read, and then the time
// for repair.
func (p *Plan) settle() time.Duration {
	if p.within > 0 {
		return p.within
	}
	return p.MissedAfter + max(p.notice(), p.noticeDead()) + time.Second
}

// notice returns how long it may take, when all is well again, until everybody
// knows what there is to know of those who live.
func (p *Plan) notice() time.Duration {
	d := 500*time.Millisecond + p.Idle
	if p.has("database", "freeze", "clone", "revoke") {
		d += 2*databaseTimeout + 2*p.Poll // calls that hang
	}
	if p.Mute {
		d += p.Lease/3 + 2*p.Poll // the rows' marks tell what no heartbeat does
	}
	return d
}

// noticeDead is notice for those who died: it takes three heartbeats to be taken for
// dead.
func (p *Plan) noticeDead() time.Duration {
	if !p.has("kill", "stop", "freeze", "clone", "revoke", "cut") {
		return 0
	}
	return p.notice() + p.Poll + 4*p.Idle
}

// repair returns what must be repaired and not missed.
func (p *Plan) repair() history.Repair {
	const moment = 3 * time.Second
	r := history.Repair{Within: p.notice() + moment, Evicts: p.RingBytes < defaultRingBytes || p.RingFrames < defaultRingFrames}
	if p.CacheBytes >= defaultCacheBytes {
		r.Left = max(p.notice(), p.noticeDead()) + moment
	}
	return r
}

// has reports whether any of the verbs stands in the plan, beyond what sets it
// up.
func (p *Plan) has(verbs ...string) bool {
	return slices.ContainsFunc(p.Actions, func(a Action) bool {
		verb := firstWord(a.Line)
		return slices.Contains(verbs, verb) && (verb != "database" || a.At > 0)
	})
}

// backups reports whether the plan needs older states of a database.
func (p *Plan) backups() bool {
	return slices.ContainsFunc(p.Actions, func(a Action) bool {
		return strings.HasPrefix(a.Line, "database") && (strings.Contains(a.Line, "failover") || strings.Contains(a.Line, "lag"))
	})
}

// captures reports whether somebody listens, to replay frames.
func (p *Plan) captures() bool {
	return p.has("replay")
}

func (p *Plan) add(at time.Duration, format string, args ...any) {
	p.Actions = append(p.Actions, Action{at, fmt.Sprintf(format, args...)})
}

func (p *Plan) sort() {
	slices.SortStableFunc(p.Actions, func(a, b Action) int { return int(a.At - b.At) })
}

// settings are the numbers of a plan by name.
func (p *Plan) settings() []struct {
	name  string
	value any
} {
	return []struct {
		name  string
		value any
	}{
		{"missed-after", &p.MissedAfter}, {"lease", &p.Lease}, {"poll", &p.Poll}, {"send-time", &p.SendTime}, {"idle", &p.Idle}, {"mute", &p.Mute},
		{"unsent-bytes", &p.UnsentBytes}, {"ring-bytes", &p.RingBytes}, {"ring-frames", &p.RingFrames}, {"cache-bytes", &p.CacheBytes},
	}
}

// String returns the text form.
func (p *Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d\nset", p.Seed)
	for _, s := range p.settings() {
		switch v := s.value.(type) {
		case *time.Duration:
			fmt.Fprintf(&b, " %s=%v", s.name, *v)
		case *bool:
			fmt.Fprintf(&b, " %s=%v", s.name, *v)
		case *int:
			fmt.Fprintf(&b, " %s=%d", s.name, *v)
		}
	}
	b.WriteString("\n")
	for _, a := range p.Actions {
		if a.At > 0 {
			fmt.Fprintf(&b, "at %v ", a.At)
		}
		b.WriteString(a.Line + "\n")
	}
	fmt.Fprintf(&b, "at %v end\n", p.End)
	return b.String()
}

// ParsePlan reads the text form. What is not set is as package carillon has it.
func ParsePlan(text string) (*Plan, error) {
	p := defaults(1)
	for i, line := range strings.Split(text, "\n") {
		if err := p.parseLine(strings.TrimSpace(line)); err != nil {
			return nil, fmt.Errorf("sim: line %d, %q: %w", i+1, line, err)
		}
	}
	p.sort()
	return p, nil
}

func (p *Plan) parseLine(line string) (err error) {
	var at time.Duration
	if rest, ok := strings.CutPrefix(line, "at "); ok {
		var when string
		when, line, _ = strings.Cut(rest, " ")
		if at, err = time.ParseDuration(when); err != nil {
			return err
		}
	}
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "", "#":
	case "seed":
		p.Seed, err = strconv.ParseUint(rest, 10, 64)
	case "set":
		err = p.set(strings.Fields(rest))
	case "end":
		p.End = at
	default:
		if verbs[verb] == nil {
			return fmt.Errorf("there is no verb %q", verb)
		}
		p.Actions = append(p.Actions, Action{at, line})
	}
	return err
}

func (p *Plan) set(words []string) (err error) {
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		known := false
		for _, s := range p.settings() {
			if s.name != name {
				continue
			}
			known = true
			switch v := s.value.(type) {
			case *time.Duration:
				*v, err = time.ParseDuration(value)
			case *bool:
				*v, err = strconv.ParseBool(value)
			case *int:
				*v, err = strconv.Atoi(value)
			}
			if err != nil {
				return err
			}
		}
		if !known {
			return fmt.Errorf("there is no setting %q", name)
		}
	}
	return nil
}

// TraceFrames has [Run] print every frame too.
func (p *Plan) TraceFrames() {
	p.Actions = slices.Insert(p.Actions, 0, Action{Line: "frames on"})
}
