package history

import "time"

// A tally judges the reports of one instance that give a number and not the
// events: several reports that were merged into one before the subscriber was
// called.
type tally struct {
	reports []Record
	counts  map[Stream]uint64 // announced, by stream; under the zero Stream what was merged across streams
	used    map[Stream]uint64 // of those, taken up by events that nothing else accounts for
	left    uint64            // events told nothing of, obliged or not: no more can be missed
	total   uint64            // announced by exact reports
}

func newTally(in *instance) *tally {
	t := &tally{reports: in.merged, counts: map[Stream]uint64{}, used: map[Stream]uint64{}}
	for i := range t.reports {
		r := &t.reports[i]
		t.counts[r.Stream] += r.Count
		if r.Exact {
			t.total += r.Count
		}
	}
	return t
}

// excused reports whether a report that is not exact allows for the event: it says
// that there may have been more, and if it is about one stream, that there may be
// more on its way. One that announces nothing and names no stream
// (the database is away) excuses nothing: what it warns of must still be told.
func (t *tally) excused(s *stream, seq uint64, out time.Duration) bool {
	for i := range t.reports {
		r := &t.reports[i]
		switch {
		case r.Exact || r.At+aftermath < out:
		case r.Stream == Stream{} && r.Count > 0 && r.At >= out,
			s != nil && r.Stream == s.id && seq >= s.first+r.First:
			return true
		}
	}
	return false
}

// covered reports whether a merged report can stand for the event, and takes up
// one of what it announces. Whether it announces enough is seen at the end.
func (t *tally) covered(s *stream, seq uint64, out time.Duration) bool {
	any := false
	for i := range t.reports {
		r := &t.reports[i]
		if r.At < out || r.Count == 0 {
			continue
		}
		switch {
		case s != nil && r.Stream == s.id && s.first+r.First <= seq && seq <= s.first+r.Last:
			t.used[s.id]++
			return true
		case r.Stream == Stream{} || s == nil:
			any = true
		}
	}
	if any && s != nil {
		t.used[s.id]++
	} else if any {
		t.used[Stream{}]++
	}
	return any
}

// judgeCounts holds the numbers announced against the events that they can
// stand for: neither too few nor too many.
func (c *Checker) judgeCounts(in *instance, t *tally) {
	if len(t.reports) == 0 {
		return
	}
	short := t.used[Stream{}]
	for s, used := range t.used {
		if s != (Stream{}) && used > t.counts[s] {
			short += used - t.counts[s]
		}
	}
	if have := t.counts[Stream{}]; short > have {
		c.verdict.add(Violation{Rule: Silent, At: c.now, Instance: in.name,
			Note: "merged reports of misses announce too few: more events were told nothing of"})
	}
	if t.total > t.left {
		c.verdict.add(Violation{Rule: Twice, At: c.now, Instance: in.name,
			Note: "merged reports of misses announce more events than were not Raised"})
	}
}
