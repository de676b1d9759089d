package sim

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/carillon-go/carillon/internal/history"
	"github.com/carillon-go/carillon/site"
)

const (
	databaseTimeout = 4 * time.Second // as in package carillon
	backupEvery     = 250 * time.Millisecond
	maxBackups      = 64
)

// outage says how a database that is away behaves.
type outage uint8

const (
	here    outage = iota
	refuses        // connections are refused at once
	hangs          // nothing answers until the caller gives up
	forgets        // calls are carried out, and the answers are lost
)

var errAway = errors.New("sim: the site database is away")

// A database is a site database as instances reach it: late, sometimes not at
// all, sometimes an older one than before.
type database struct {
	w       *world
	name    string
	random  *rand.Rand
	latency time.Duration // mean of a call
	away    outage
	store   *store

	// What a replica or a backup holds. A replica that lags answers reads until
	// staleUntil as of then.
	backups    []backup
	stale      *store
	staleUntil time.Duration
}

type backup struct {
	at    time.Duration
	store *store
}

func (w *world) addDatabase(name string, latency time.Duration) *database {
	d := &database{w: w, name: name, random: w.random("database " + name), latency: latency,
		store: &store{index: map[site.StreamID]int{}}}
	w.databases = append(w.databases, d)
	if w.plan.backups() {
		d.backUp()
	}
	return d
}

func (d *database) backUp() {
	d.backups = append(d.backups, backup{d.w.now, d.store.clone()})
	if len(d.backups) > maxBackups {
		d.backups = d.backups[1:]
	}
	d.w.after(backupEvery, d.backUp)
}

// asOf returns the newest backup that is at least so old.
func (d *database) asOf(age time.Duration) *store {
	for i := len(d.backups) - 1; i >= 0; i-- {
		if d.backups[i].at+age <= d.w.now {
			return d.backups[i].store.clone()
		}
	}
	return nil
}

// call carries out op in a moment, and then done at the instance, unless that has
// ended by then.
func (d *database) call(in *instance, op func(s *store, now time.Time) error, done func(error)) {
	way := d.way()
	d.w.after(way, func() {
		err := errAway
		switch d.away {
		case refuses:
		case hangs:
			in.later(databaseTimeout-way, func() { done(err) })
			return
		case forgets:
			op(d.store, d.w.clock())
			in.later(databaseTimeout-way, func() { done(err) })
			return
		default:
			err = op(d.store, d.w.clock())
		}
		in.later(d.way(), func() { done(err) })
	})
}

// read is call for what a replica may answer too.
func (d *database) read(in *instance, op func(s *store, now time.Time) error, done func(error)) {
	d.call(in, func(s *store, now time.Time) error {
		if d.stale != nil && d.w.now < d.staleUntil {
			s = d.stale
		}
		return op(s, now)
	}, done)
}

// way returns how long a message takes one way.
func (d *database) way() time.Duration {
	return d.latency/4 + time.Duration(d.random.Int64N(int64(d.latency/2)+1))
}

// failOver makes a replica that lags the primary: what was committed since is
// lost.
func (d *database) failOver(lag time.Duration) {
	s := d.asOf(lag)
	if s == nil {
		return
	}
	for _, row := range d.store.rows {
		if _, ok := s.index[row.member.Stream]; !ok {
			d.w.record(history.Record{Kind: history.Erased, Stream: history.Stream(row.member.Stream)})
		}
	}
	d.store = s
}

// lag has a replica answer reads for a while.
func (d *database) lag(age, lasts time.Duration) {
	if s := d.asOf(age); s != nil {
		d.stale, d.staleUntil = s, d.w.now+lasts
	}
}
