package sim

import (
	"time"

	"github.com/carillon-go/carillon/internal/history"
	"github.com/carillon-go/carillon/site"
)

const (
	acknowledgeWait = 2 * time.Second // as in package carillon
	acknowledgePoll = 100 * time.Millisecond
	leaveWait       = time.Second
)

// A leaveState is how far an instance is on its way out.
type leaveState struct {
	closing bool // Shutdown or Close has begun: nothing is raised or told any more
	leaving bool // nobody renews the row any more
}

// shutdown ends in in good order: flush, wait for acknowledgements, say goodbye,
// close the row.
func (in *instance) shutdown() {
	if in.closing {
		return
	}
	in.record(history.Record{Kind: history.Shutdown})
	if in.machine == nil || !in.opened {
		in.closing, in.leaving = true, true
		in.leaveRows(in.closed)
		return
	}
	in.closing, in.sending = true, true
	if in.called { // Raise returns an error
		in.called = false
		in.record(history.Record{Kind: history.Refused, Seq: in.seq})
	}
	in.pokeSend()
	in.flush(in.w.now + databaseTimeout)
}

// flush waits until everything was handed on, within the time that the
// application allows.
func (in *instance) flush(until time.Duration) {
	switch {
	case !in.machine.Pending() && in.machine.HandedMark() == in.machine.Mark():
		in.acknowledged(in.w.now + acknowledgeWait)
	case in.w.now >= until:
		in.closeRow(false)
	default:
		in.later(acknowledgePoll/10, func() { in.flush(until) })
	}
}

// acknowledged waits until everybody alive has acknowledged everything.
func (in *instance) acknowledged(until time.Duration) {
	if in.machine.Drained(in.w.clock()) || in.w.now >= until {
		in.machine.Bye(in.w.clock(), &in.fx)
		in.goodbye = func() { in.closeRow(true) }
		in.effects()
		in.pokeSend()
		return
	}
	in.later(acknowledgePoll, func() { in.acknowledged(until) })
}

// closeRow ends the round that keeps the row, and closes it.
func (in *instance) closeRow(clean bool) {
	in.leaving = true
	in.leaveRows(func(left bool) { in.closed(clean && left) })
}

// leaveRows closes the rows of in: the present one with its final mark, and those
// of which it is not clear whether they were ever made.
func (in *instance) leaveRows(then func(left bool)) {
	var mark site.Mark
	if in.machine != nil {
		mark = in.machine.Mark()
	}
	own, self := in.own, in.self
	done := false
	once := func(left bool) {
		if !done {
			done = true
			then(left)
		}
	}
	in.process.database.call(in, func(s *store, now time.Time) error {
		for i := len(own) - 1; i >= 0; i-- {
			final := site.Mark{}
			if own[i] == self {
				final = mark
			}
			s.leave(own[i], final, now)
		}
		return nil
	}, func(err error) { once(err == nil) })
	in.later(leaveWait, func() { once(false) })
}

func (in *instance) closed(clean bool) {
	in.record(history.Record{Kind: history.Closed, Clean: clean})
	in.end()
}
