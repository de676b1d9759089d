package sim

import (
	"errors"
	"time"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/internal/history"
	"github.com/carillon-go/carillon/site"
)

const (
	joinTries     = 3
	snapshotTries = 5
	snapshotAgain = 200 * time.Millisecond
	restartAfter  = 500 * time.Millisecond // a supervisor starts again what could not open

	firstFrameBytes = 32 << 10 // where no network has a lower limit
	holdFrames      = 256
	leastHoldBytes  = 1 << 20
)

// open joins the site as carillon.Open does: keys, networks, epoch, row, keys
// again, snapshot, start.
func (in *instance) open() {
	in.record(history.Record{Kind: history.Opening, Site: in.process.site, Accepts: []string{"*"}})
	in.w.stats.Joins++
	in.began = in.w.now
	in.readKeys(func() {
		for _, n := range in.process.networks {
			n.base().join(in)
		}
		in.join(1, in.joined)
	})
}

// giveUp ends an instance that could not open. What it left is cleaned up as far
// as possible, and it is started again.
func (in *instance) giveUp() {
	in.leaveRows(func(bool) {
		p := in.process
		in.kill()
		in.w.after(restartAfter, func() {
			if p.run == nil {
				p.boot()
			}
		})
	})
}

func (in *instance) readKeys(then func()) {
	var all []site.Site
	in.process.database.read(in, func(s *store, _ time.Time) error {
		all = append(all[:0], s.sites...)
		return nil
	}, func(err error) {
		if err != nil || !in.useSites(all, time.Time{}) {
			in.giveUp()
			return
		}
		then()
	})
}

// join takes a new stream and commits its row. Whether a row was committed is
// unclear after an error, so every attempt takes a stream of its own.
func (in *instance) join(try int, then func(site.StreamID)) {
	var epoch uint64
	db := in.process.database
	failed := func() {
		if try == joinTries {
			in.giveUp()
			return
		}
		in.join(try+1, then)
	}
	db.call(in, func(s *store, _ time.Time) error { epoch = s.nextEpoch(); return nil }, func(err error) {
		if err != nil {
			failed()
			return
		}
		in.commitRow(epoch, func(stream site.StreamID, err error) {
			if err != nil {
				failed()
				return
			}
			then(stream)
		})
	})
}

func (in *instance) commitRow(epoch uint64, done func(site.StreamID, error)) {
	stream := site.NewStreamID(epoch, in.random.Uint64())
	in.own = append(in.own, stream)
	verifies, _ := in.claims()
	signs := max(verifies, in.keys.self.Generation)
	row := site.Member{
		Site: in.keys.self.ID, Stream: stream, Server: in.process.name, Application: in.process.site,
		Role: site.RolePublish | site.RoleSubscribe, Verifies: verifies, Signs: signs,
	}
	in.process.database.call(in, func(s *store, now time.Time) error { return s.join(row, in.w.plan.Lease, now) }, func(err error) {
		done(stream, err)
	})
}

func (in *instance) joined(stream site.StreamID) {
	in.self = stream
	// A key that became active before the row was there may rely on nobody
	// signing with an older one, so the keys are read again.
	in.readKeys(func() {
		s, err := in.addSealer(stream)
		if err != nil {
			in.giveUp()
			return
		}
		in.cfg = in.configure(stream, s.Trailer())
		in.machine = engine.New(in.cfg)
		in.w.byStream[stream] = in
		in.snapshot(1)
	})
}

func (in *instance) configure(stream site.StreamID, trailer int) engine.Config {
	p := in.w.plan
	cfg := engine.Config{
		Site: in.keys.self.ID, Stream: stream, Role: site.RolePublish | site.RoleSubscribe, Key: in.keys.active.ID,
		FrameBytes: firstFrameBytes, TrailerBytes: trailer, MaxEventBytes: 1 << 20, UnsentBytes: p.UnsentBytes,
		RingBytes: p.RingBytes, RingFrames: p.RingFrames, HoldFrames: holdFrames, HoldBytes: leastHoldBytes,
		CacheBytes: p.CacheBytes, Ways: engine.Ways{ReachesOne: true}, MissedAfter: p.MissedAfter, MaxStall: time.Second,
		Seed: in.random.Uint64(),
	}
	cfg.IdleHeartbeat = idleHeartbeat(in.process.networks)
	for _, n := range in.process.networks {
		n.base().configure(&cfg)
	}
	return cfg
}

// snapshot reads who is there, after the own row was committed.
func (in *instance) snapshot(try int) {
	var snap site.Snapshot
	in.process.database.read(in, func(s *store, now time.Time) (err error) {
		snap, err = s.snapshot(in.self, in.keys.ids, now)
		return err
	}, func(err error) {
		switch {
		case errors.Is(err, site.ErrStale) && try < snapshotTries:
			in.later(snapshotAgain, func() { in.snapshot(try + 1) })
		case err != nil:
			in.giveUp()
		default:
			in.begin(snap)
		}
	})
}

func (in *instance) begin(snap site.Snapshot) {
	// What changes after this revision is read later. A key that changed since the
	// keys were read, and before it, is only in here.
	in.useSites(snap.Sites, snap.Now)
	in.rows = map[site.StreamID]site.Member{}
	in.updateRows(snap.Members)
	in.revision = snap.Revision
	in.readAt = in.w.now
	in.joinedRows, in.joinedRevision = in.foreign(snap.Members), snap.Revision
	in.machine.Start(in.w.clock(), in.joinedRows, &in.fx)
	in.startFollowing()
	in.effects()
}

// cameInStep is the return of carillon.Open: subscribers were added before.
func (in *instance) cameInStep() {
	in.record(history.Record{Kind: history.Opened, Stream: history.Stream(in.self)})
	in.record(history.Record{Kind: history.Subscribed})
	in.opened = true
	in.w.tally.comesInStep(in.w.now - in.began)
	in.later(in.process.enable, in.enable)
	in.raiseMore()
}
