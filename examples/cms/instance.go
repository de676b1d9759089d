package cms

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/examples/cms/cable"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// SiteName is the name that the demonstration's site has in its database.
const SiteName = "carillon-demo"

// A Config is what an instance needs. Fields without a stated default are
// required.
type Config struct {
	Index int // of the instance, from 1; also its name to people

	// DB holds the pages, see [Prepare]. The instance does not close it.
	DB *sql.DB

	// Database is the site database, in the same file. Nil with Provider nil.
	Database site.Database

	// Provider carries events to the other instances. Nil means that events are
	// off: what this instance raises, only this instance hears. The instance closes it.
	Provider provider.Provider

	// Standby are the transports that the site can be moved to while it runs, see [carillon.Config.Standby]. Nil with
	// Provider nil. What cuts Provider off from the network cuts them off as well.
	Standby map[string]func() (provider.Provider, error)

	// MissedAfter is how long an event may stay missing. Zero means 2 s, short enough
	// to be watched.
	MissedAfter time.Duration

	// DashboardPort is where the dashboard is, which may show the pages in frames.
	// 0 means that there is none.
	DashboardPort int

	// Report is told what happens. It is called concurrently. Nil means that nobody
	// wants to know.
	Report func(Report)

	// Logger receives the records of the instance and its Broker. Nil discards them.
	Logger *slog.Logger

	onLoaded func(*Instance) // runs between the loading of the caches and Enable; for tests
}

// An Instance is one process's share of the site. It is safe for concurrent use.
type Instance struct {
	cfg     Config
	log     *slog.Logger
	broker  *carillon.Broker
	events  events
	cable   *cable.Cable // nil when events are off
	server  *server
	handler http.Handler
	count   eventCount
	caches  cacheCount

	mu            sync.Mutex // guards the fields below
	cutIn, cutOut uint64     // frames that had vanished before the last cut

	dropped map[carillon.DropReason]uint64 // as WatchDrops knows them
	outage  Outage                         // as WatchProvider knows it
	carrier string                         // as WatchProvider knows it; "" before it was called
}

// eventCount counts what an instance tells of.
type eventCount struct{ raised, received, missed atomic.Uint64 }

// cacheCount counts the looks into the caches.
type cacheCount struct{ hits, misses atomic.Uint64 }

// Open starts an instance, in the order that every application should keep:
//
//  1. Open the Broker. When it returns, the instance is in step: from here on
//     no event of another instance escapes it.
//  2. Subscribe, and load the caches. Events that arrive meanwhile are held.
//  3. Enable. What was held is delivered, and drops from the caches what has
//     changed while they were loaded.
func Open(ctx context.Context, cfg Config) (*Instance, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MissedAfter == 0 {
		cfg.MissedAfter = 2 * time.Second
	}
	if cfg.Report == nil {
		cfg.Report = func(Report) {}
	}
	in := &Instance{cfg: cfg, log: cfg.Logger, events: defineEvents()}

	bc := carillon.Config{
		Site:        SiteName,
		Application: instanceName(cfg.Index),
		MissedAfter: cfg.MissedAfter,
		Logger:      cfg.Logger.With("component", "broker"),
	}
	if cfg.Provider != nil {
		in.cable = cable.New(cfg.Provider)
		bc.Database = cfg.Database
		bc.Providers = []provider.Provider{in.cable}
		bc.Standby = map[string]func() (provider.Provider, error){}
		for name, make := range cfg.Standby {
			bc.Standby[name] = func() (provider.Provider, error) {
				p, err := make()
				if err != nil {
					return nil, err
				}
				return in.cable.Beside(p), nil
			}
		}
	}
	b, err := carillon.Open(ctx, bc)
	if err != nil {
		return nil, fmt.Errorf("open the event broker: %w", err)
	}
	in.broker = b
	st := &store{db: cfg.DB, now: time.Now}
	pages, links, workflow := &pageCache{store: st}, &linkMap{store: st}, &workflowCache{store: st}
	for _, cache := range []interface {
		subscribe(*carillon.Broker, events)
		load(context.Context) error
	}{pages, links, workflow} {
		cache.subscribe(b, in.events)
		if err := cache.load(ctx); err != nil {
			b.Close()
			return nil, fmt.Errorf("load a cache: %w", err)
		}
	}
	if cfg.onLoaded != nil {
		cfg.onLoaded(in)
	}
	in.watch()
	b.Enable()

	in.server = &server{
		instance:      cfg.Index,
		dashboardPort: cfg.DashboardPort,
		pages:         pages,
		links:         links,
		workflow:      workflow,
		publisher:     &publisher{store: st, instance: cfg.Index, announce: in},
		count:         &in.caches,
		log:           cfg.Logger.With("component", "site"),
	}
	in.handler = in.server.handler()
	return in, nil
}

// instanceName is what others know an instance by.
func instanceName(index int) string { return fmt.Sprintf("instance %d", index) }

// Handler returns the pages of the instance.
func (in *Instance) Handler() http.Handler { return in.handler }

// PostNotice writes on the notice board, as an editor would.
func (in *Instance) PostNotice(ctx context.Context) error {
	err := in.server.publisher.notice(ctx, time.Now())
	if err != nil {
		in.note("notice not posted", err.Error())
	}
	return err
}

// silent is for how long one hears nothing of a peer that is gone. An idle one is
// heard once a second.
const silent = 4 * time.Second

var errEventsOff = errors.New("events are off, so there is no network to cut")

// Cut makes all frames from and to this instance vanish, until Heal.
func (in *Instance) Cut() error {
	if in.cable == nil {
		return errEventsOff
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.cable.Cut() {
		in.cutIn, in.cutOut = in.cable.Lost()
		in.note("network cut", "frames vanish from now on, in both directions")
	}
	return nil
}

// Heal lets frames pass again.
func (in *Instance) Heal() error {
	if in.cable == nil {
		return errEventsOff
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.cable.Heal() {
		i, o := in.cable.Lost()
		in.note("network connected", fmt.Sprintf("%d frames had vanished on their way in, %d on their way out", i-in.cutIn, o-in.cutOut))
	}
	return nil
}

func (in *Instance) note(head, text string) {
	in.cfg.Report(Report{At: time.Now().UnixMicro(), Kind: KindNote, Event: head, Text: text})
}

// Counters returns what was counted until now.
func (in *Instance) Counters() Counters {
	c := Counters{
		Raised:   in.count.raised.Load(),
		Received: in.count.received.Load(),
		Missed:   in.count.missed.Load(),
		Hits:     in.caches.hits.Load(),
		Misses:   in.caches.misses.Load(),
	}
	if in.cable != nil {
		i, o := in.cable.Lost()
		c.Dropped = i + o
	}
	stats := in.broker.Stats()
	for reason, n := range stats.Drops {
		if !normalDrop(reason) {
			c.Dropped += n
		}
	}
	c.Outage, c.Carrier = outage(stats), carrier(stats)
	for _, m := range in.broker.Members() {
		// One that was killed has a lease for a while yet; on a screen it should be
		// gone as soon as its heartbeats are.
		if !m.Self && !m.Lapsed && time.Since(m.LastContact) < silent {
			c.Peers++
		}
	}
	if s := in.broker.Status(); len(s.Problems) > 0 {
		c.Status = s.Problems[0]
	}
	return c
}

// Shutdown says goodbye to the other instances and stops.
func (in *Instance) Shutdown(ctx context.Context) error { return in.broker.Shutdown(ctx) }

// Close stops at once.
func (in *Instance) Close() error { return in.broker.Close() }
