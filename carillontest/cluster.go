package carillontest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/memsite"
)

// patience is how long anything here waits before it fails the test.
const patience = 30 * time.Second

// A Cluster is a site with several instances in this process. Its methods fail
// the test instead of returning errors, so they belong into the test's own
// goroutine; [Cluster.Broker] is for any.
type Cluster struct {
	t         testing.TB
	bus       *membus.Bus
	pulse     *membus.Provider // see settle
	db        *memsite.Database
	wire      func(i int, b *carillon.Broker)
	configure []func(i int, cfg *carillon.Config)
	faults    providertest.Faults
	disabled  bool

	mu        sync.Mutex // guards the field below
	instances []*instance
}

// instance is one run of an instance.
type instance struct {
	broker *carillon.Broker // nil after Crash or Stop
	gate   *gate
	link   providertest.FaultyProvider // around gate
	db     *connection
}

// An Option changes how a Cluster's instances are made.
type Option func(*Cluster)

// Wire has fn called for every instance that is opened, also by Restart and Add,
// when it is in step and before it is enabled: the place to subscribe and to
// load caches. i is the instance's number, from 0.
func Wire(fn func(i int, b *carillon.Broker)) Option {
	return func(c *Cluster) { c.wire = fn }
}

// Configure has fn change the configuration of every instance before it is opened. It comes with
// Database, Providers, Application and Server set, and a Logger that writes to the test's log.
func Configure(fn func(i int, cfg *carillon.Config)) Option {
	return func(c *Cluster) { c.configure = append(c.configure, fn) }
}

// Faults has the network of every instance be faulty from the beginning, see
// [providertest.Faulty]. Instances have different fates.
func Faults(f providertest.Faults) Option { return func(c *Cluster) { c.faults = f } }

// Disabled leaves it to the test to call Enable.
func Disabled() Option { return func(c *Cluster) { c.disabled = true } }

// NewCluster opens n instances of one site, one after the other. They are closed
// when the test ends.
func NewCluster(t testing.TB, n int, opts ...Option) *Cluster {
	t.Helper()
	c := &Cluster{t: t, bus: membus.New(), db: memsite.New(nil)}
	for _, o := range opts {
		o(c)
	}
	var err error
	if c.pulse, err = newPulse(c.bus); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	for range n {
		c.Add()
	}
	return c
}

// Add opens one more instance and returns its number.
func (c *Cluster) Add() int {
	c.t.Helper()
	c.mu.Lock()
	i := len(c.instances)
	c.instances = append(c.instances, &instance{})
	c.mu.Unlock()
	c.open(i)
	return i
}

// Len returns how many instances there are, those that do not run included.
func (c *Cluster) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.instances)
}

// Broker returns instance i, or nil if it does not run.
func (c *Cluster) Broker(i int) *carillon.Broker { return c.at(i).broker }

// Database returns the site database of all instances, for tests that change
// sites or keys.
func (c *Cluster) Database() *memsite.Database { return c.db }

// Bus returns the network of all instances, for tests that listen to frames or
// send some of their own.
func (c *Cluster) Bus() *membus.Bus { return c.bus }

func (c *Cluster) at(i int) instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i < 0 || i >= len(c.instances) {
		c.t.Helper()
		c.t.Fatalf("carillontest: there is no instance %d; the cluster has %d, from 0 on", i, len(c.instances))
	}
	return *c.instances[i]
}

func (c *Cluster) set(i int, it instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*c.instances[i] = it
}

func (c *Cluster) open(i int) {
	c.t.Helper()
	if err := c.TryOpen(i); err != nil {
		c.t.Fatalf("open instance %d: %v", i, err)
	}
}

// TryOpen opens instance i, which does not run, and returns what Open returns.
func (c *Cluster) TryOpen(i int) error {
	faults := c.faults
	faults.Seed += uint64(i) << 32
	it := instance{gate: newGate(c.bus), db: &connection{db: c.db}}
	it.link = providertest.Faulty(it.gate, faults)
	cfg := carillon.Config{
		Application: "carillontest",
		Server:      fmt.Sprintf("instance-%d", i),
		Database:    it.db,
		Providers:   []provider.Provider{it.link},
		Logger:      logger(c.t, i),
	}
	for _, fn := range c.configure {
		fn(i, &cfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b, err := carillon.Open(ctx, cfg)
	if err != nil {
		return err
	}
	it.broker = b
	c.set(i, it)
	if c.wire != nil {
		c.wire(i, b)
	}
	if !c.disabled {
		b.Enable()
	}
	return nil
}

// Stop ends instance i in good order, as Shutdown does.
func (c *Cluster) Stop(i int) {
	c.t.Helper()
	it := c.running(i)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := it.broker.Shutdown(ctx); err != nil {
		c.t.Errorf("shut down instance %d: %v", i, err)
	}
	c.set(i, instance{})
}

// Crash ends instance i as a kill does: nothing that it had not sent is sent, nobody hears a
// goodbye, and its member row stays open.
func (c *Cluster) Crash(i int) {
	c.t.Helper()
	it := c.running(i)
	it.link.SetPartition(providertest.Both)
	it.db.cut()
	it.broker.Close() // its error is that the row could not be closed
	c.set(i, instance{})
}

// Restart opens instance i again, after a crash if it runs: the same server, a new
// stream.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	if c.at(i).broker != nil {
		c.Crash(i)
	}
	c.open(i)
}

// Cut takes instance i off the network, in both directions, without telling it.
// What was raised before arrives still. What is raised between Cut and Heal is
// repaired after Heal, if that comes within [carillon.Config.MissedAfter], and
// missed otherwise.
func (c *Cluster) Cut(i int) { c.CutDirection(i, providertest.Both) }

// CutDirection is Cut for what the instance sends (Out) or for what arrives (In).
func (c *Cluster) CutDirection(i int, d providertest.Direction) {
	c.t.Helper()
	it := c.running(i)
	c.settle()
	it.link.SetPartition(d)
}

// Lose keeps what the others raise until Heal from instance i for good: no
// repair of it arrives either, so it is missed in the end. What was raised
// before arrives still, and what instance i raises arrives at the others.
func (c *Cluster) Lose(i int) {
	c.t.Helper()
	it := c.running(i)
	c.settle()
	it.gate.lose(true)
}

// Heal ends what Cut and Lose began.
func (c *Cluster) Heal(i int) {
	c.t.Helper()
	it := c.running(i)
	c.settle()
	it.gate.lose(false)
	it.link.Heal()
}

// SetRates makes the network of instance i faulty, see [providertest.Rates].
func (c *Cluster) SetRates(i int, out, in providertest.Rates) {
	c.t.Helper()
	c.running(i).link.SetRates(out, in)
}

// TakeDatabaseAway makes every call of the site database fail, for all
// instances.
func (c *Cluster) TakeDatabaseAway() { c.db.SetDown(errAway) }

// BringDatabaseBack ends what TakeDatabaseAway began.
func (c *Cluster) BringDatabaseBack() { c.db.SetDown(nil) }

var errAway = errors.New("carillontest: the database was taken away")

func (c *Cluster) running(i int) instance {
	c.t.Helper()
	it := c.at(i)
	if it.broker == nil {
		c.t.Fatalf("instance %d does not run", i)
	}
	return it
}

func (c *Cluster) close() {
	for i := range c.Len() {
		if b := c.Broker(i); b != nil {
			b.Close() // what tests did to the network or the database may make it fail
		}
	}
	c.pulse.Close()
}

// connection is one instance's way to the database.
type connection struct {
	db site.Database

	mu  sync.RWMutex // guards the field below
	off bool
}

var (
	_ site.Database = (*connection)(nil)

	errCrashed = errors.New("carillontest: the instance has crashed")
)
