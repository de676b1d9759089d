package sim

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/carillon-go/carillon/internal/history"
	"github.com/carillon-go/carillon/site"
)

// A followState keeps an instance's row alive, and what it knows of the others up
// to date.
type followState struct {
	revision  site.Revision
	rows      map[site.StreamID]site.Member
	asked     bool // the machine wants the member table read
	gone      bool // the own row is gone, or the own stream not to be trusted
	started   bool // rounds are made
	following bool // a round is under way
	again     bool // another one is wanted at once
	round     int  // numbers the timers, of which only the last counts
	renewAt   time.Duration
	reapAt    time.Duration
	readAll   time.Duration // when all rows were read last
	readAt    time.Duration // when the last read that succeeded began
	isolated  bool
	wanted    time.Duration // no read for the sake of unknown keys before
	wait      time.Duration
}

const longestKeyWait = 10 * time.Second

func (in *instance) startFollowing() {
	in.renewAt = in.w.now + in.w.plan.Lease/3
	in.reapAt = in.w.now + in.reapIn()
	in.readAll = in.w.now
	in.started = true
	if in.again {
		in.again = false
		in.pokeFollow()
	} else {
		in.followSoon()
	}
}

func (in *instance) reapIn() time.Duration {
	lease := in.w.plan.Lease
	return lease + time.Duration(in.random.Int64N(int64(lease)*int64(1+len(in.w.processes)/4)))
}

// pollIn returns when to read the changes next, with jitter.
func (in *instance) pollIn() time.Duration {
	poll := in.w.plan.Poll
	return poll*3/4 + time.Duration(in.random.Int64N(int64(poll/2)+1))
}

func (in *instance) followSoon() {
	in.round++
	round := in.round
	in.later(in.pollIn(), func() {
		if in.round == round {
			in.follow()
		}
	})
}

// pokeFollow has a round begin now.
func (in *instance) pokeFollow() {
	if !in.started {
		in.again = true
		return
	}
	in.round++ // the timer is void
	in.later(0, in.follow)
}

// follow makes one round: read what changed, renew, join again if need be, reap.
func (in *instance) follow() {
	if in.leaving {
		return
	}
	if in.following {
		in.again = true
		return
	}
	in.following = true
	in.readChanges(func() {
		in.renewIfDue(func() {
			in.rejoinIfGone(func() {
				in.reapIfDue(func() {
					in.following = false
					if in.again {
						in.again = false
						in.follow()
						return
					}
					in.followSoon()
				})
			})
		})
	})
}

func (in *instance) readChanges(then func()) {
	if in.w.now-in.readAll >= in.w.plan.Lease {
		in.revision = 0
	}
	asked, since, began := in.asked, in.revision, in.w.now
	in.asked = false
	var snap site.Snapshot
	in.process.database.read(in, func(s *store, now time.Time) (err error) {
		snap, err = s.changes(since, now)
		return err
	}, func(err error) {
		in.noteRead(began, err)
		in.w.tally.reads(len(snap.Members))
		if errors.Is(err, site.ErrStale) && since > 0 {
			in.revision = 0 // the database is older than before: everything is read again
		}
		now := in.w.clock()
		if err != nil {
			if asked {
				in.machine.AskFailed(now)
			}
			in.effects()
			then()
			return
		}
		if len(snap.Sites) > 0 {
			in.useSites(snap.Sites, snap.Now)
		}
		in.endKeys(snap.Now)
		if since == 0 {
			in.readAll = began
			snap.Members = in.lostBy(snap.Members)
		}
		in.updateRows(snap.Members)
		in.revision = snap.Revision
		distrustNew := in.distrust()
		in.machine.Members(now, in.foreign(snap.Members), asked, &in.fx)
		distrustNew()
		in.effects()
		then()
	})
}

// noteRead warns subscribers when the database has been away for a lease, and
// when it is back.
func (in *instance) noteRead(began time.Duration, err error) {
	was := in.isolated
	if err == nil {
		in.readAt, in.isolated = began, false
	} else if in.w.now-in.readAt >= in.w.plan.Lease {
		in.isolated = true
	}
	if was != in.isolated && in.enabled && !in.closing {
		in.w.stats.Isolated++
		in.record(history.Record{Kind: history.Missed, Reason: "isolated"})
	}
}

// foreign returns the rows of accepted sites without those of streams that this
// instance had before.
func (in *instance) foreign(rows []site.Member) []site.Member {
	return slices.DeleteFunc(slices.Clone(rows), func(m site.Member) bool {
		return !in.keys.accepts(m.Site) || m.Stream != in.self && slices.Contains(in.own, m.Stream)
	})
}

// lostBy adds to all rows that the database has those that it lost since they
// were read, as if they had been reaped. The own one means a new stream.
func (in *instance) lostBy(rows []site.Member) []site.Member {
	for _, known := range slices.SortedFunc(maps.Values(in.rows), func(a, b site.Member) int {
		return bytes.Compare(a.Stream[:], b.Stream[:])
	}) {
		has := slices.ContainsFunc(rows, func(r site.Member) bool { return r.Stream == known.Stream })
		if has || known.State != site.MemberOpen {
			continue
		}
		if known.Stream == in.self {
			in.gone = true
		}
		known.State = site.MemberReaped
		rows = append(rows, known)
	}
	return rows
}

func (in *instance) updateRows(rows []site.Member) {
	for _, r := range rows {
		in.rows[r.Stream] = r
	}
}

func (in *instance) renewIfDue(then func()) {
	if in.w.now < in.renewAt && !in.unsaid() {
		then()
		return
	}
	began := in.w.now
	verifies, signs := in.claims()
	renewal := site.Renewal{Mark: in.machine.HandedMark(), Verifies: verifies, Signs: signs, Lease: in.w.plan.Lease}
	self := in.self
	in.process.database.call(in, func(s *store, now time.Time) error { return s.renew(self, renewal, now) }, func(err error) {
		switch {
		case err == nil:
			in.renewAt = began + in.w.plan.Lease/3
		case errors.Is(err, site.ErrGone):
			in.gone = true
			in.renewAt = began + in.w.plan.Lease/3
		}
		then()
	})
}

func (in *instance) reapIfDue(then func()) {
	if in.w.now < in.reapAt {
		then()
		return
	}
	in.reapAt = in.w.now + in.reapIn()
	in.process.database.call(in, func(s *store, now time.Time) error {
		s.reap(in.w.plan.Lease, now)
		return nil
	}, func(error) { then() })
}

// rejoinIfGone takes a new stream when the row of the present one is gone. If
// that fails, the next round tries again.
func (in *instance) rejoinIfGone(then func()) {
	if !in.gone {
		then()
		return
	}
	var epoch uint64
	db := in.process.database
	db.call(in, func(s *store, _ time.Time) error { epoch = s.nextEpoch(); return nil }, func(err error) {
		if err != nil {
			then()
			return
		}
		in.commitRow(epoch, func(stream site.StreamID, err error) {
			if err != nil {
				then()
				return
			}
			// Who rotated the key while there was no row did not wait for this
			// instance, so the keys are read again.
			var all []site.Site
			db.read(in, func(s *store, _ time.Time) error {
				all = append(all[:0], s.sites...)
				return nil
			}, func(err error) {
				if err != nil || !in.useSites(all, time.Time{}) {
					then()
					return
				}
				in.renumber(stream, then)
			})
		})
	})
}

func (in *instance) renumber(stream site.StreamID, then func()) {
	s, err := in.addSealer(stream)
	if err != nil {
		then()
		return
	}
	old, mark := in.self, in.machine.Mark()
	in.self, in.gone = stream, false
	if in.w.byStream[old] == in {
		delete(in.w.byStream, old)
	}
	in.w.byStream[stream] = in
	in.w.stats.Resets++
	in.record(history.Record{Kind: history.Renumbered, Stream: history.Stream(stream)})
	now := in.w.clock()
	in.machine.SetKey(now, in.keys.active.ID, s.Trailer())
	in.machine.Renumber(now, stream, &in.fx)
	in.effects()
	in.process.database.call(in, func(s *store, now time.Time) error {
		s.leave(old, mark, now)
		return nil
	}, func(error) { then() })
}

// keyWanted has the keyring read soon, because a frame named a key that is not
// in it. Anybody can send such frames, so the reads they provoke become rare.
func (in *instance) keyWanted() {
	now := in.w.now
	if now < in.wanted {
		return
	}
	if now-in.wanted > longestKeyWait {
		in.wait = 0
	}
	in.wait = min(max(in.w.plan.Poll, 2*in.wait), longestKeyWait)
	in.wanted = now + in.wait
	in.pokeFollow()
}
