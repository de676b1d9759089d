//go:build linux

package own

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/bench/internal/system"
	"github.com/carillon-go/carillon/provider"
)

// Application is what instances call themselves, and their site.
const Application = "bench"

// event is the one that is raised: of bytes, so that no codec is measured.
var event = carillon.Define[[]byte](carillon.MustParseID("0f2d5c0e-8f0b-4a53-b6c1-8d5d0c1c7e21"), "measured",
	carillon.WithCodec(carillon.Bytes()))

// An instance is one process's part in the site.
type instance struct {
	db       *Database
	provider provider.Provider
	broker   *carillon.Broker
	missed   atomic.Uint64 // reports of events missed
}

// join opens an instance; nothing is dispatched yet.
func (c carrier) join(ctx context.Context, s system.Spec, address string) (*instance, error) {
	db, err := OpenDatabase(s.Dir)
	if err != nil {
		return nil, err
	}
	in := &instance{db: db}
	if in.provider, err = c.provider(address); err == nil {
		in.broker, err = carillon.Open(ctx, carillon.Config{
			Application: Application, Database: db, Providers: []provider.Provider{in.provider},
		})
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	return in, nil
}

func (in *instance) listen(deliver func([]byte)) {
	event.OnRaised(in.broker, func(_ context.Context, r carillon.Raised[[]byte]) { deliver(r.Parameter) })
	event.OnMissed(in.broker, func(_ context.Context, m carillon.Missed) { in.missed.Add(max(m.Count, 1)) })
}

// Report implements system.Reporter. A miss, known or not to be of the event, spoils the run.
func (in *instance) Report() (facts string, err error) {
	s := in.broker.Stats()
	var notes []string
	note := func(what string, n uint64) {
		if n > 0 {
			notes = append(notes, fmt.Sprintf("%s %d", what, n))
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(s.Drops)) {
		note("dropped: "+reason.String(), s.Drops[reason])
	}
	note("control frames dropped", s.ControlDropped)
	note("frames asked for again", s.Repair.Asked)
	note("frames repaired", s.Repair.Repaired)
	note("frames sent again", s.Repair.Resent)
	for _, p := range s.Peers {
		note("evictions of a slow receiver", p.Evictions)
	}
	for _, p := range s.Providers {
		note("failed calls of provider "+p.Name, p.Failures)
	}
	if n := max(s.Missed, in.missed.Load()); n > 0 {
		err = fmt.Errorf("%d events were missed", n)
	}
	return strings.Join(notes, ", "), err
}

// Close ends the instance.
func (in *instance) Close() error {
	return errors.Join(in.broker.Close(), in.db.Close())
}

// A publisher raises the event.
type publisher struct {
	*instance
	subscribers int
	address     string
	connected   func(provider.Provider) int // nil: the member table has to do
}

// Address implements system.Publisher.
func (p *publisher) Address() string { return p.address }

// Ready implements system.Publisher.
func (p *publisher) Ready(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		there := len(p.broker.Members()) - 1 // without this one
		if p.connected != nil {
			there = min(there, p.connected(p.provider))
		}
		if there >= p.subscribers {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d are there: %w", there, p.subscribers, context.Cause(ctx))
		}
	}
}

// Publish implements system.Publisher.
func (p *publisher) Publish(data []byte) error {
	return event.Raise(context.Background(), p.broker, carillon.ID{}, data)
}

// Flush implements system.Publisher. What is raised is on its way already.
func (p *publisher) Flush() error { return nil }

// Close implements system.Publisher.
func (p *publisher) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(p.broker.Shutdown(ctx), p.instance.Close())
}
