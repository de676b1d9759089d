package carillon

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// A database that was copied, say to try a release on the data of production,
// brings the site's ID and keys along. Both checks of a received frame then pass
// between two environments that have nothing to do with each other, if a network
// connects them. What gives them away is that what one writes the other cannot
// read: each writes a random value, its witness, into its own member row and
// asks the other for it.

const (
	maxSuspects  = 64
	witnessTries = 5                // questions without an answer
	witnessAgain = time.Second      // between them
	witnessRest  = 10 * time.Minute // after that, so that replays of old frames make nobody talk
	witnessWait  = 2 * time.Second  // of Open, for the first answer
	witnessLast  = 5 * time.Second  // of Open before it refuses: those that run ask until then
	lapsedSlack  = 5 * time.Second  // a renewal may be late
	heardLately  = 3 * time.Second
)

// A guard finds out whether instances that are heard, and that the member table
// does not know or has as long dead, have another database. It belongs to the
// Broker's mutex.
type guard struct {
	suspects map[site.StreamID]*suspect
	heard    []engine.Heard // not looked at yet
	answered map[site.StreamID]answered
	copies   map[site.StreamID]*Source
	changed  broadcast

	witness   [16]byte // in the own row; zero: none
	witnessAt time.Time
}

type suspect struct {
	strikes int      // rounds in which both did not find the other's witness
	witness [16]byte // of this round; zero: it has not begun
	asked   int
	nextAt  time.Time
	resting bool // it did not answer
}

// answered is what another was answered last. Questions can be replayed, and a
// read of the database and an answer must not be had for nothing.
type answered struct {
	witness [16]byte
	times   int
	at      time.Time
}

// suspectLocked has the guard look at an instance. b.mu is held.
func (b *Broker) suspectLocked(s site.StreamID) {
	g := &b.guard
	if g.suspects[s] != nil || g.copies[s] != nil || len(g.suspects) >= maxSuspects {
		return
	}
	if g.suspects == nil {
		g.suspects = map[site.StreamID]*suspect{}
	}
	g.suspects[s] = &suspect{}
	poke(b.followWake)
}

// heardWitnessLocked keeps what was heard until the member table has been read
// after it. b.mu is held.
func (b *Broker) heardWitnessLocked(h engine.Heard) {
	g := &b.guard
	if h.Witness.Yours != (wire.ID{}) {
		if s := g.suspects[h.Stream]; s == nil || s.witness != h.Witness.Yours {
			return // not asked, or answered before
		}
	} else if !g.mayAnswer(h.Stream, h.Witness.Mine, time.Now()) {
		return
	}
	if len(g.heard) < maxSuspects {
		g.heard = append(g.heard, h)
		poke(b.followWake)
	}
}

// mayAnswer counts a question, and reports whether it may be answered: each as
// often as it is asked, at most twice a second.
func (g *guard) mayAnswer(s site.StreamID, witness [16]byte, now time.Time) bool {
	a, known := g.answered[s]
	switch {
	case known && now.Sub(a.at) < witnessAgain/2:
		return false
	case a.witness != witness:
		a = answered{witness: witness}
	case a.times >= witnessTries:
		return false
	}
	if !known && len(g.answered) >= maxSuspects {
		for s, old := range g.answered {
			if now.Sub(old.at) > witnessRest {
				delete(g.answered, s)
			}
		}
		if len(g.answered) >= maxSuspects {
			return false
		}
	}
	if g.answered == nil {
		g.answered = map[site.StreamID]answered{}
	}
	a.times, a.at = a.times+1, now
	g.answered[s] = a
	return true
}

// takeWitnesses returns what was heard so far. The next read of the member table
// begins after it.
func (b *Broker) takeWitnesses() []engine.Heard {
	b.mu.Lock()
	defer b.mu.Unlock()
	heard := b.guard.heard
	b.guard.heard = nil
	return heard
}

// guardClones judges what was heard before the read of the member table that has
// just succeeded, and asks those who are due.
func (b *Broker) guardClones(heard []engine.Heard) {
	now := time.Now()
	b.mu.Lock()
	b.suspectLapsedLocked(now)
	var questions []engine.Heard
	for _, h := range heard {
		if h.Witness.Yours == (wire.ID{}) {
			questions = append(questions, h)
			// It has written its witness before it asked. In a young copy its row may
			// still look alive.
			if row := b.rows.members[h.Stream]; row == nil || row.Witness != h.Witness.Mine {
				b.suspectLocked(h.Stream)
			}
			continue
		}
		b.judgeLocked(now, h)
	}
	due := b.dueLocked(now)
	b.mu.Unlock()
	if len(questions)+len(due) == 0 {
		return
	}
	witness, err := b.writeWitness(now)
	if err != nil {
		return // the next round tries again
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, q := range questions {
		row := b.rows.members[q.Stream]
		seen := row != nil && row.Witness == q.Witness.Mine
		b.machine.SayWitness(now, wire.Witness{To: q.Stream, Mine: witness, Yours: q.Witness.Mine, Seen: seen}, &b.fx)
	}
	for _, stream := range due {
		s := b.guard.suspects[stream]
		if s.witness == ([16]byte{}) {
			s.witness = witness
		}
		s.asked++
		s.nextAt = now.Add(witnessAgain)
		b.machine.SayWitness(now, wire.Witness{To: stream, Mine: s.witness}, &b.fx)
	}
	b.applyLocked(now)
}

// suspectLapsedLocked suspects instances that are heard though their rows say
// that they have been dead for long: a copied database holds rows of those that
// ran when it was copied. b.mu is held.
func (b *Broker) suspectLapsedLocked(now time.Time) {
	for _, p := range b.machine.Peers() {
		if now.Sub(p.HeardAt) < heardLately && b.rows.strange(p.Stream, now, b.cfg.Lease) {
			b.suspectLocked(p.Stream)
		}
	}
}

// strange reports whether the table does not know a stream as that of a living
// instance.
func (t *memberTable) strange(s site.StreamID, now time.Time, lease time.Duration) bool {
	row := t.members[s]
	return row == nil || now.Add(t.offset).Sub(row.Seen) > lease+lapsedSlack
}

// judgeLocked takes an answer. b.mu is held.
func (b *Broker) judgeLocked(now time.Time, h engine.Heard) {
	g := &b.guard
	s := g.suspects[h.Stream]
	if s == nil || s.witness != h.Witness.Yours {
		return // answered twice since the read began
	}
	row := b.rows.members[h.Stream]
	if h.Witness.Seen || row != nil && row.Witness == h.Witness.Mine {
		delete(g.suspects, h.Stream)
		g.changed.signal()
		return
	}
	// A replica may lag, or a row have been removed a moment ago, so once is not
	// enough: it is asked again a lease later, with another witness.
	s.strikes++
	s.witness, s.asked, s.nextAt = [16]byte{}, 0, now.Add(b.cfg.Lease)
	if s.strikes < 2 {
		b.sayLocked(slog.LevelWarn, "an instance is heard that this site database does not know, nor does its database know this one; asking again in a while",
			keyStream, h.Stream, "after", b.cfg.Lease)
	} else {
		delete(g.suspects, h.Stream)
		if g.copies == nil || len(g.copies) >= maxSuspects {
			g.copies = map[site.StreamID]*Source{}
		}
		g.copies[h.Stream] = b.rows.source(h.Site, h.Stream)
		b.sayLocked(slog.LevelError, "two databases have the site of this instance: one is a copy of the other", "site", b.cfg.Site, keyStream, h.Stream,
			"remedy", copyRemedy)
		b.machine.Distrust(now, func(s site.StreamID) bool { return s != h.Stream }, &b.fx)
		b.applyLocked(now)
	}
	g.changed.signal()
}

// dueLocked returns the suspects to ask now, and lets those be that do not
// answer. b.mu is held.
func (b *Broker) dueLocked(now time.Time) (due []site.StreamID) {
	for stream, s := range b.guard.suspects {
		switch {
		case now.Before(s.nextAt):
		case s.resting:
			delete(b.guard.suspects, stream)
		case s.asked == witnessTries:
			s.resting, s.nextAt = true, now.Add(witnessRest)
			b.guard.changed.signal()
		default:
			due = append(due, stream)
		}
	}
	return due
}

// writeWitness commits a random value to the own row, unless the one there is
// young, and returns it. It outlives one round of questions and not two.
func (b *Broker) writeWitness(now time.Time) ([16]byte, error) {
	b.mu.Lock()
	g := &b.guard
	if g.witness != ([16]byte{}) && now.Sub(g.witnessAt) < b.cfg.Lease/2 {
		defer b.mu.Unlock()
		return g.witness, nil
	}
	mark := b.machine.HandedMark()
	b.mu.Unlock()
	var w [16]byte
	crand.Read(w[:])
	verifies, signs := b.claims()
	err := b.database(func(ctx context.Context) error {
		return b.cfg.Database.Renew(ctx, b.self.Load().Stream, site.Renewal{
			Mark: mark, Verifies: verifies, Signs: signs, Lease: b.cfg.Lease, Witness: w,
		})
	})
	if err != nil {
		return w, fmt.Errorf("carillon: write a witness into the member row: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	g.witness, g.witnessAt = w, now
	return w, nil
}

const copyRemedy = "if this database is a copy, give it a site of its own: carillon site fork; if it was restored in place of the other: carillon site accept-restore"

// guardOpen returns an error if an instance with another database is heard. It
// waits for the answers of those who are suspected of it.
func (b *Broker) guardOpen(ctx context.Context) error {
	b.mu.Lock()
	started := time.Now()
	b.mu.Unlock()
	for {
		b.mu.Lock()
		var copies *Source
		for _, c := range b.guard.copies {
			copies = c
		}
		wait := time.Duration(0)
		for _, s := range b.guard.suspects {
			switch {
			case s.resting:
			case s.strikes > 0:
				wait = max(wait, b.cfg.Lease+witnessTries*witnessAgain-time.Since(started))
			default:
				wait = max(wait, witnessWait-time.Since(started))
			}
		}
		changed := b.guard.changed.wait()
		b.mu.Unlock()
		switch {
		case copies != nil:
			last := time.NewTimer(witnessLast)
			defer last.Stop()
			select {
			case <-last.C:
			case <-ctx.Done():
			}
			who := copies.Stream.String()
			if copies.Server != "" {
				who += " on server " + copies.Server
			}
			return fmt.Errorf("%w: instance %s answers under the keys of site %q and has another database; %s", ErrCopied, who, b.cfg.Site, copyRemedy)
		case wait <= 0:
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("find out whether an instance that is heard shares this database, which takes a little more than a lease of %v: %w; %s",
				b.cfg.Lease, context.Cause(ctx), copyRemedy)
		}
		timer.Stop()
	}
}

// guardStatus says what the guard has found.
func (b *Broker) guardStatus(s *Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for stream := range b.guard.copies {
		s.Problems = append(s.Problems, fmt.Sprintf("instance %v has a copy of this site database, or this one is the copy: its events are not accepted; %s", stream, copyRemedy))
	}
}
