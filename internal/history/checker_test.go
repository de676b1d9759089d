package history

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const settle = 10 * time.Second

// A script writes a history, one thing after the other.
type script struct {
	at      time.Duration
	records []Record
}

func (s *script) add(name string, k Kind, fill ...func(*Record)) *script {
	r := Record{At: s.at, Instance: name, Kind: k, Site: "shop"}
	for _, f := range fill {
		f(&r)
	}
	s.records = append(s.records, r)
	return s
}

func (s *script) wait(d time.Duration) *script { s.at += d; return s }

// open starts instances that hear every event.
func (s *script) open(names ...string) *script {
	for _, n := range names {
		s.add(n, Opening).wait(time.Millisecond)
		s.add(n, Opened, func(r *Record) { r.Stream = streamOf(n) }).add(n, Subscribed).add(n, Enabled)
	}
	return s
}

func streamOf(name string) (s Stream) { copy(s[:], name); return s }

// raise has name raise events of one ID, as real processes record it.
func (s *script) raise(name, event string, first, n uint64, ordered bool) *script {
	for seq := first; seq < first+n; seq++ {
		s.add(name, Raise, func(r *Record) { r.Seq, r.Event, r.Ordered, r.Sum = seq, event, ordered, 100+seq })
		s.add(name, Accepted, func(r *Record) { r.Seq = seq })
	}
	return s
}

// sent has them numbered, as the simulation records it.
func (s *script) sent(name string, seq, ordinal, n uint64) *script {
	return s.add(name, Sent, func(r *Record) { r.Seq, r.Ordinal, r.Count, r.Stream = seq, ordinal, n, streamOf(name) })
}

func (s *script) raised(name, from, event string, seqs ...uint64) *script {
	for _, seq := range seqs {
		s.add(name, Raised, func(r *Record) {
			r.From, r.Seq, r.Event, r.Sum, r.Stream, r.Ordinal = from, seq, event, 100+seq, streamOf(from), seq
		})
	}
	return s
}

func (s *script) missed(name, from string, first, last uint64) *script {
	return s.add(name, Missed, func(r *Record) {
		r.Stream, r.First, r.Last, r.Count, r.Exact, r.Reason = streamOf(from), first, last, last-first+1, true, "timeout"
	})
}

// merged is a report that stands for several.
func (s *script) merged(name, from string, first, last, n uint64, exact bool) *script {
	return s.add(name, Missed, func(r *Record) {
		r.First, r.Last, r.Count, r.Exact = first, last, n, exact
		if from != "" {
			r.Stream = streamOf(from)
		}
	})
}

// edit changes the last record.
func (s *script) edit(f func(*Record)) *script { f(&s.records[len(s.records)-1]); return s }

func (s *script) calm() *script { return s.add("", Calm) }

func (s *script) end() *script { return s.wait(time.Minute).add("", End) }

func TestCheck_EveryRuleFires(t *testing.T) {
	two := func() *script { return new(script).open("a", "b").wait(time.Second) }
	for _, tt := range []struct {
		name   string
		script *script
		want   []Rule // none: the promise was kept
	}{
		{"kept", two().raise("a", "e", 0, 3, false).raised("b", "a", "e", 0, 2).calm().wait(time.Second).missed("b", "a", 1, 1).end(), nil},
		{"raised twice", two().raise("a", "e", 0, 1, false).raised("b", "a", "e", 0, 0).end(), []Rule{Twice}},
		{"raised and missed", two().raise("a", "e", 0, 2, false).raised("b", "a", "e", 1).missed("b", "a", 0, 1).end(), []Rule{Twice}},
		{"missed twice", two().raise("a", "e", 0, 2, false).missed("b", "a", 0, 1).missed("b", "a", 1, 1).end(), []Rule{Twice}},
		{"own event comes back", two().raise("a", "e", 0, 1, false).raised("a", "a", "e", 0).end(), []Rule{Twice}},
		{"own event told locally", two().raise("a", "e", 0, 1, false).
			add("a", Raised, func(r *Record) { r.From = "a" }).end(), nil},
		{"silent last message", two().raise("a", "e", 0, 2, false).raised("b", "a", "e", 0).calm().end(), []Rule{Silent}},
		{"silent gap, faults or not", two().raise("a", "e", 0, 2, false).raised("b", "a", "e", 1).end(), []Rule{Silent}},
		{"silent, sender closed", two().raise("a", "e", 0, 1, false).add("a", Shutdown).
			add("a", Closed, func(r *Record) { r.Clean = true }).calm().end(), []Rule{Silent}},
		{"faults go on: too early to judge", two().raise("a", "e", 0, 2, false).raised("b", "a", "e", 0).end(), nil},
		{"before in step", new(script).open("a").raise("a", "e", 0, 1, false).open("b").calm().end(), nil},
		{"numbered after in step", new(script).open("a").raise("a", "e", 0, 1, false).open("b").wait(1).sent("a", 0, 0, 1).calm().end(), []Rule{Silent}},
		{"receiver shuts down before it is due", two().raise("a", "e", 0, 1, false).calm().wait(time.Second).add("b", Shutdown).end(), nil},
		{"receiver frozen", two().raise("a", "e", 0, 1, false).calm().add("b", Frozen).end(), nil},
		{"sender killed, nobody heard", two().raise("a", "e", 0, 1, false).add("a", Killed).calm().end(), nil},
		{"sender killed, a survivor heard", two().open("c").raise("a", "e", 0, 1, false).raised("c", "a", "e", 0).add("a", Killed).calm().end(), []Rule{Silent}},
		{"sender killed, heard by another that died", two().open("c").raise("a", "e", 0, 1, false).raised("c", "a", "e", 0).
			add("a", Killed).add("c", Killed).calm().end(), nil},
		{"sender killed while it raised", two().add("a", Raise, func(r *Record) { r.Event = "e" }).add("a", Killed).calm().end(), nil},
		{"tardy", two().raise("a", "e", 0, 1, false).calm().wait(settle+1).raised("b", "a", "e", 0).end(), []Rule{Tardy}},
		{"in the last moment", two().raise("a", "e", 0, 1, false).calm().wait(settle).raised("b", "a", "e", 0).end(), nil},
		{"phantom", two().raised("b", "a", "e", 0).end(), []Rule{Phantom}},
		{"phantom sender", two().raised("b", "x", "e", 0).end(), []Rule{Phantom}},
		{"raised though refused", two().add("a", Raise, func(r *Record) { r.Event, r.Sum = "e", 100 }).raised("b", "a", "e", 0).
			add("a", Refused).end(), []Rule{Phantom}},
		{"refused, and the number used again", two().add("a", Raise).add("a", Refused).raise("a", "e", 0, 1, false).raised("b", "a", "e", 0).end(), nil},
		{"missed what was never raised", two().raise("a", "e", 0, 1, false).missed("b", "a", 0, 1).end(), []Rule{Phantom}},
		{"site not accepted", new(script).open("a").add("b", Opening, func(r *Record) { r.Site = "other" }).
			add("b", Opened).add("b", Subscribed).add("b", Enabled).raise("a", "e", 0, 1, false).raised("b", "a", "e", 0).end(), []Rule{Phantom}},
		{"missed of a site not accepted", new(script).open("a").add("b", Opening, func(r *Record) { r.Site = "other" }).
			add("b", Opened).add("b", Subscribed).add("b", Enabled).raise("a", "e", 0, 1, false).missed("b", "a", 0, 0).end(), []Rule{Phantom}},
		{"site accepted", new(script).open("a").add("b", Opening, func(r *Record) { r.Site, r.Accepts = "other", []string{"shop"} }).
			add("b", Opened).add("b", Subscribed).add("b", Enabled).raise("a", "e", 0, 1, false).calm().end(), []Rule{Silent}},
		{"other payload", two().raise("a", "e", 0, 1, false).
			add("b", Raised, func(r *Record) { r.From, r.Event, r.Sum, r.Stream = "a", "e", 7, streamOf("a") }).end(), []Rule{Payload}},
		{"other event", two().raise("a", "e", 0, 1, false).raised("b", "a", "f", 0).end(), []Rule{Payload}},
		{"missed from before it joined", new(script).open("a", "b").raise("a", "e", 0, 1, false).raised("b", "a", "e", 0).wait(time.Second).
			open("c").missed("c", "a", 0, 0).end(), []Rule{Baseline}},
		{"raised from before it joined", new(script).open("a").raise("a", "e", 0, 1, false).sent("a", 0, 0, 1).wait(time.Second).
			open("c").raised("c", "a", "e", 0).end(), []Rule{Baseline}},
		{"the same while a fault lasts", new(script).open("a").raise("a", "e", 0, 1, false).sent("a", 0, 0, 1).wait(time.Second).
			add("", Fault).open("c").add("", Mended).missed("c", "a", 0, 0).end(), nil},
		{"Ordered out of order", two().raise("a", "e", 0, 2, true).raised("b", "a", "e", 1, 0).end(), []Rule{Disordered}},
		{"Ordered, missed after what follows", two().raise("a", "e", 0, 2, true).raised("b", "a", "e", 1).missed("b", "a", 0, 0).end(), []Rule{Disordered}},
		{"two Ordered events beside each other", two().raise("a", "e", 0, 1, true).raise("a", "f", 1, 1, true).
			raised("b", "a", "f", 1).raised("b", "a", "e", 0).end(), nil},
		{"not Ordered out of order", two().raise("a", "e", 0, 2, false).raised("b", "a", "e", 1, 0).end(), nil},
		{"one number for two events", two().raise("a", "e", 0, 2, false).raised("b", "a", "e", 0).
			add("b", Raised, func(r *Record) {
				r.From, r.Seq, r.Event, r.Sum, r.Stream, r.Ordinal = "a", 1, "e", 101, streamOf("a"), 0
			}).end(), []Rule{Numbering}},
		{"numbered twice", two().raise("a", "e", 0, 2, false).sent("a", 0, 0, 1).sent("a", 1, 0, 1).raised("b", "a", "e", 0, 1).end(), []Rule{Numbering}},
		{"a clone speaks", two().open("a2").add("a", Cloned, func(r *Record) { r.Stream = streamOf("a") }).raise("a", "e", 0, 1, false).calm().end(), nil},
		{"row erased before anybody knew it", two().add("", Erased, func(r *Record) { r.Stream = streamOf("a") }).raise("a", "e", 0, 1, false).calm().end(), nil},
		{"row erased of a stream that is known", two().raise("a", "e", 0, 2, false).raised("b", "a", "e", 0).wait(1).
			add("", Erased, func(r *Record) { r.Stream = streamOf("a") }).raise("a", "e", 2, 1, false).calm().raised("b", "a", "e", 1).end(), []Rule{Silent}},
		{"joined in the aftermath of a fault", new(script).open("a").raise("a", "e", 0, 1, false).sent("a", 0, 0, 1).wait(time.Second).
			add("", Fault).add("", Mended).wait(time.Second).open("c").missed("c", "a", 0, 0).end(), nil},
		{"told before Enable", new(script).open("a").add("b", Opening).add("b", Opened).add("b", Subscribed).
			raise("a", "e", 0, 1, false).raised("b", "a", "e", 0).end(), []Rule{Early}},
		{"missed before Enable", new(script).open("a").add("b", Opening).add("b", Opened).add("b", Subscribed).
			raise("a", "e", 0, 1, false).missed("b", "a", 0, 0).end(), []Rule{Early}},
		{"told after the end", two().raise("a", "e", 0, 1, false).add("b", Shutdown).add("b", Closed).raised("b", "a", "e", 0).end(), []Rule{Ended}},
		{"out of time", two().add("a", Enabled, func(r *Record) { r.At = 0 }), []Rule{Malformed}},
		{"unknown kind", two().add("a", "lunch"), []Rule{Malformed}},
		{"not dense", two().add("a", Raise, func(r *Record) { r.Seq = 3 }), []Rule{Malformed}},
		{"nobody", two().add("", Enabled), []Rule{Malformed}},

		// Reports that only give a number.
		{"merged, enough", two().raise("a", "e", 0, 5, false).raised("b", "a", "e", 2).merged("b", "a", 1, 4, 3, true).raised("b", "a", "e", 0).calm().end(), nil},
		{"merged, too few", two().raise("a", "e", 0, 5, false).raised("b", "a", "e", 0, 2).merged("b", "a", 1, 4, 2, true).calm().end(), []Rule{Silent}},
		{"merged, too many", two().raise("a", "e", 0, 5, false).raised("b", "a", "e", 0, 1, 2).merged("b", "a", 1, 4, 3, true).calm().end(), []Rule{Twice}},
		{"merged, elsewhere", two().raise("a", "e", 0, 5, false).raised("b", "a", "e", 1, 3).merged("b", "a", 2, 4, 2, true).calm().end(), []Rule{Silent}},
		{"merged across streams", two().open("c").raise("a", "e", 0, 2, false).raise("c", "e", 0, 2, false).
			raised("b", "a", "e", 0).raised("b", "c", "e", 1).raised("a", "c", "e", 0, 1).raised("c", "a", "e", 0, 1).merged("b", "", 0, 0, 2, true).calm().end(), nil},
		{"merged across streams, too few", two().open("c").raise("a", "e", 0, 2, false).raise("c", "e", 0, 2, false).
			raised("a", "c", "e", 0, 1).raised("c", "a", "e", 0, 1).merged("b", "", 0, 0, 3, true).calm().end(), []Rule{Silent}},
		{"not exact", two().raise("a", "e", 0, 5, false).merged("b", "a", 1, 1, 1, false).raised("b", "a", "e", 0, 2).calm().end(), nil},
		{"not exact, of another stream", two().raise("a", "e", 0, 1, false).merged("b", "x", 0, 0, 1, false).calm().end(), []Rule{Silent}},
		{"a warning excuses nothing", two().raise("a", "e", 0, 1, false).merged("b", "", 0, 0, 0, false).calm().end(), []Rule{Silent}},
		{"a stream that nobody placed", two().raise("a", "e", 0, 2, false).
			add("b", Missed, func(r *Record) { r.Stream, r.Last, r.Count, r.Exact = Stream{9}, 1, 2, true }).calm().end(), nil},
		{"a stream placed later", two().raise("a", "e", 0, 3, false).
			add("b", Missed, func(r *Record) { r.Stream, r.Count, r.Exact = Stream{9}, 1, true }).raised("b", "a", "e", 0).
			add("b", Raised, func(r *Record) { r.From, r.Seq, r.Event, r.Sum, r.Stream, r.Ordinal = "a", 2, "e", 102, Stream{9}, 1 }).calm().end(), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := Check(tt.script.records, settle)
			var got []Rule
			for _, x := range v.Violations {
				if !slices.Contains(got, x.Rule) {
					got = append(got, x.Rule)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("rules broken: %v, want %v\n%v", got, tt.want, &v)
			}
			if v.Holds() != (len(tt.want) == 0) {
				t.Errorf("Holds() = %v with %v", v.Holds(), tt.want)
			}
		})
	}
}

func TestCheck_UnrepairedFires(t *testing.T) {
	lost := func() *script {
		return new(script).open("a", "b", "c").wait(time.Second).raise("a", "e", 0, 1, false).raised("c", "a", "e", 0).calm()
	}
	evicted := func(r *Record) { r.Reason = "evicted" }
	for _, tt := range []struct {
		name   string
		script *script
		expect Repair
		want   uint64
	}{
		{"sender lives", lost().wait(4*time.Second).missed("b", "a", 0, 0).end(), Repair{Within: 3 * time.Second}, 1},
		{"sender lives, in time", lost().wait(3*time.Second).missed("b", "a", 0, 0).end(), Repair{Within: 3 * time.Second}, 0},
		{"survivor has it", lost().add("a", Killed).wait(4*time.Second).missed("b", "a", 0, 0).end(), Repair{Left: 3 * time.Second}, 1},
		{"survivors need not", lost().add("a", Killed).wait(4*time.Second).missed("b", "a", 0, 0).end(), Repair{Within: 3 * time.Second}, 0},
		{"evicted from a large ring", lost().wait(4*time.Second).missed("b", "a", 0, 0).edit(evicted).end(), Repair{Within: 3 * time.Second}, 1},
		{"evicted from a small ring", lost().wait(4*time.Second).missed("b", "a", 0, 0).edit(evicted).end(), Repair{Within: 3 * time.Second, Evicts: true}, 0},
		{"nothing expected", lost().wait(4*time.Second).missed("b", "a", 0, 0).end(), Repair{}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := NewChecker(settle)
			c.Expect(tt.expect)
			for i := range tt.script.records {
				c.Add(&tt.script.records[i])
			}
			v := c.Verdict()
			if v.Broken != tt.want || v.Broken > 0 && v.Violations[0].Rule != Unrepaired {
				t.Errorf("%v, want %d violations of unrepaired", &v, tt.want)
			}
		})
	}
}

// A violation must let a person find the event in the histories.
func TestViolation_NamesInstanceStreamOrdinalAndTime(t *testing.T) {
	s := new(script).open("a", "b").wait(time.Second).raise("a", "e", 0, 2, false).raised("b", "a", "e", 0).calm().end()
	v := Check(s.records, settle)
	if len(v.Violations) != 1 {
		t.Fatalf("%v", &v)
	}
	text := v.Violations[0].String()
	for _, want := range []string{"silent", "b,", "event 1 of a", streamOf("a").String(), "ordinal 1", "11.002s"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
}

func TestVerdict_CountsWhatIsNotPromised(t *testing.T) {
	s := new(script).open("a", "b").wait(time.Second).raise("a", "e", 0, 3, false).
		raised("b", "a", "e", 0).add("a", Killed).calm().end()
	v := Check(s.records, settle)
	if !v.Holds() || v.Raises != 3 || v.Raised != 1 || v.Lost != 2 {
		t.Errorf("%v, want 3 raises, 1 Raised, 2 lost and no violation", &v)
	}
}

func TestVerdict_BoundsWhatItKeeps(t *testing.T) {
	s := new(script).open("a", "b").wait(time.Second)
	for range 1000 {
		s.raised("b", "a", "e", 0)
	}
	if v := Check(s.records, settle); v.Broken != 1000 || len(v.Violations) != maxViolations {
		t.Errorf("%d of %d violations kept, want %d of 1000", len(v.Violations), v.Broken, maxViolations)
	}
}

func TestRule_EveryRuleHasAName(t *testing.T) {
	for r := Rule(1); r < numRules; r++ {
		if r.String() == "" {
			t.Errorf("rule %d has no name", r)
		}
	}
}
