package cms

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/carillon-go/carillon"
)

// What follows tells whoever watches the demonstration what happens. The caches
// do not depend on any of it.

// A told is the part that the site's events have in common, as people are told
// of it.
type told struct {
	Change   int64  `json:"change"`
	Page     int64  `json:"page"`
	Slug     string `json:"slug"`
	Was      string `json:"was"`
	Revision int64  `json:"revision"`
	State    string `json:"state"`
}

// describe fills in what a report says of an event.
func (t told) describe(r *Report) {
	r.Key = fmt.Sprintf("%s/%d", r.Event, t.Change)
	r.Page, r.Revision = t.Page, t.Revision
	switch {
	case t.State != "":
		is := map[state]string{stateDraft: "a draft", stateReview: "in review"}[state(t.State)]
		if is == "" {
			is = t.State
		}
		r.Text = fmt.Sprintf("/%s is %s", t.Slug, is)
	case t.Was != "":
		r.Text = fmt.Sprintf("/%s is now /%s, revision %d", t.Was, t.Slug, t.Revision)
	case t.Revision != 0:
		r.Text = fmt.Sprintf("/%s, revision %d", t.Slug, t.Revision)
	default:
		r.Text = fmt.Sprintf("/link/%d leads to /%s", t.Page, t.Slug)
	}
}

// watch subscribes to what the reports are made of.
func (in *Instance) watch() {
	in.broker.OnReceived(func(r carillon.Received) {
		t, ok := in.events.read(r)
		if !ok {
			return // it is told as missed
		}
		in.count.received.Add(1)
		report := Report{At: time.Now().UnixMicro(), Kind: KindReceived, Event: r.Name, From: r.Source.Application}
		if r.Name == "" {
			// Not one of ours: somebody raised it by hand.
			report.Event = r.Event.String()
			report.Key = fmt.Sprintf("%s/%d", r.Source.Stream, r.Ordinal)
			report.Text = "raised by " + r.Source.Application
		} else {
			t.describe(&report)
		}
		in.cfg.Report(report)
	})

	// A loss of events whose IDs are not known is told to all that listen for
	// losses; one report of it is enough.
	missed := func(name string, speaksForAll bool) func(context.Context, carillon.Missed) {
		return func(_ context.Context, m carillon.Missed) {
			if !m.Known && !speaksForAll {
				return
			}
			in.count.missed.Add(m.Count)
			report := Report{
				At: time.Now().UnixMicro(), Kind: KindMissed,
				From: m.Source.Application, Count: m.Count, Reason: m.Reason.String(),
			}
			if m.Known {
				report.Event = name
			}
			in.cfg.Report(report)
		}
	}
	in.events.page.OnMissed(in.broker, missed(pageChangedName, true))
	in.events.link.OnMissed(in.broker, missed(linkChangedName, false))
	in.events.workflow.OnMissed(in.broker, missed(workflowChangedName, false))
}

// read returns what an event received tells; nothing if it is none of the site's. It returns false if the event does not
// decode as its definition says, as when somebody raised it by hand with another parameter: no subscriber hears of it.
func (e events) read(r carillon.Received) (t told, ok bool) {
	var param any
	switch r.Event {
	case e.page.ID():
		param = new(PageChanged)
	case e.link.ID():
		param = new(LinkChanged)
	case e.workflow.ID():
		param = new(WorkflowChanged)
	default:
		return t, true
	}
	if json.Unmarshal(r.Payload, param) != nil {
		return t, false
	}
	// What it cannot read is a field that this event does not have, so it is left out.
	_ = json.Unmarshal(r.Payload, &t)
	return t, true
}

// raised reports a raise of one of the site's events, before it happens, so
// that the time until it is received can be told.
func (in *Instance) raised(name string, t told) {
	in.count.raised.Add(1)
	report := Report{At: time.Now().UnixMicro(), Kind: KindRaised, Event: name}
	t.describe(&report)
	in.cfg.Report(report)
}

func (in *Instance) pageChanged(ctx context.Context, e PageChanged) error {
	in.raised(pageChangedName, told{Change: e.Change, Page: e.Page, Slug: e.Slug, Was: e.Was, Revision: e.Revision})
	return in.events.page.Raise(ctx, in.broker, raiserID, e)
}

func (in *Instance) linkChanged(ctx context.Context, e LinkChanged) error {
	in.raised(linkChangedName, told{Change: e.Change, Page: e.Page, Slug: e.Slug})
	return in.events.link.Raise(ctx, in.broker, raiserID, e)
}

func (in *Instance) workflowChanged(ctx context.Context, e WorkflowChanged) error {
	in.raised(workflowChangedName, told{Change: e.Change, Page: e.Page, Slug: e.Slug, State: e.State})
	return in.events.workflow.Raise(ctx, in.broker, raiserID, e)
}

// normalDrop reports whether frames are dropped for that reason in a site where
// all is well.
func normalDrop(r carillon.DropReason) bool {
	switch r {
	case carillon.DropOwn, carillon.DropDuplicate, carillon.DropBeforeBaseline, carillon.DropUnasked:
		return true
	}
	return false
}

// unit returns what is counted under a reason: "event" or "frame".
func unit(r carillon.DropReason) string {
	switch r {
	case carillon.DropUndecodable, // or a frame, which no instance sends that is not broken
		carillon.DropRole, carillon.DropUnasked, carillon.DropNotEnabled, carillon.DropLocalQueue, carillon.DropTapQueue, carillon.DropClosing:
		return "event"
	}
	return "frame"
}

// WatchDrops reports what was dropped since it was called last, for each reason
// that says something is wrong. Call it now and then, not concurrently.
func (in *Instance) WatchDrops() {
	for reason, n := range in.broker.Stats().Drops {
		if normalDrop(reason) {
			continue
		}
		if in.dropped == nil {
			in.dropped = map[carillon.DropReason]uint64{}
		}
		if more := n - in.dropped[reason]; more > 0 {
			in.dropped[reason] = n
			in.cfg.Report(Report{At: time.Now().UnixMicro(), Kind: KindDropped, Count: more, Unit: unit(reason), Reason: reason.String()})
		}
	}
}

// outage returns what is wrong with the provider.
func outage(s carillon.Stats) Outage {
	for _, p := range s.Providers {
		if !p.FailingSince.IsZero() {
			return Outage{p.FailingSince.UnixMicro(), p.Name, strings.TrimPrefix(p.LastError, p.Name+": ")}
		}
	}
	return Outage{}
}

// carrier returns the transports on which the instance sends.
func carrier(s carillon.Stats) string {
	var names []string
	for _, p := range s.Providers {
		if p.Sending {
			names = append(names, p.Name)
		}
	}
	return strings.Join(names, ", ")
}

// WatchProvider reports that the provider carries nothing any more, or that it does again, or that another one does
// because the site is being moved, if that has changed since it was called last. Call it now and then, not concurrently.
func (in *Instance) WatchProvider() {
	stats := in.broker.Stats()
	if is := carrier(stats); is != in.carrier && is != "" {
		if in.carrier != "" {
			in.note("sends on "+is, "before: "+in.carrier)
		}
		in.carrier = is
	}
	was, is := in.outage, outage(stats)
	in.outage = is
	switch now := time.Now(); {
	case was.Since == 0 && is.Since != 0:
		in.cfg.Report(Report{At: is.Since, Kind: KindAway, Event: is.Provider + " is away", Reason: is.Reason})
	case was.Since != 0 && is.Since == 0:
		in.note(was.Provider+" is back", fmt.Sprintf("after %v", now.Sub(time.UnixMicro(was.Since)).Round(100*time.Millisecond)))
	}
}
