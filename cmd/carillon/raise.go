package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/site"
)

type raiseCmd struct {
	Event string  `arg:"" help:"ID of the event, a GUID."`
	Param *string `arg:"" optional:"" help:"Parameter; none if it is left out, standard input if it is a hyphen."`
	As    string  `placeholder:"KIND" help:"What the parameter is: text (the default), json for an event defined with a type, or base64 for bytes."`
	siteFlags
	providerFlag
	JSON bool `name:"json" help:"Print what was done as JSON."`
}

// maxParam bounds what is read from standard input; an event is at most 16 MiB.
const maxParam = 16 << 20

// Help is shown by "carillon raise --help".
func (c *raiseCmd) Help() string {
	return "Joins the site as a publisher, raises the event, waits until it has been handed over, and for up to 2 s until every live instance that listens has acknowledged it, and leaves. It says how many did; acknowledged means that the event has arrived there, not that it was understood: a typed event whose parameter does not decode is missed there. If one did not, the exit code is 5."
}

// Run implements the command.
func (c *raiseCmd) Run(ctx context.Context, std streams) error {
	id, err := carillon.ParseID(c.Event)
	if err != nil {
		return &problem{exitUsage, err, ""}
	}
	if id.IsZero() {
		return &problem{exitUsage, fmt.Errorf("the event ID %s is zero; it names no event", id), "take the GUID that the event is defined with"}
	}
	raise, err := c.parameter(std, id)
	if err != nil {
		return err
	}
	b, leave, err := open(ctx, std, &c.siteFlags, &c.providerFlag, carillon.Publish)
	if err != nil {
		return err
	}
	sent, err := c.send(ctx, b, raise)
	left := leave() // which may take the event further, so what is said is said after it
	if err != nil {
		return err
	}
	if left != nil {
		fmt.Fprintf(std.err, "carillon: leaving the site: %s\n", said(left))
	}
	if c.JSON {
		err = json.NewEncoder(std.out).Encode(sent)
	} else {
		_, err = fmt.Fprintln(std.out, sent)
	}
	if err == nil && sent.Acknowledged < sent.Listeners {
		err = &problem{exitTimeout,
			fmt.Errorf("%d of %s did not acknowledge the event within %v", sent.Listeners-sent.Acknowledged, plural(sent.Listeners, "other instance"), acknowledgeWait),
			"each may have it or not; who is there: " + c.command("members")}
	}
	return err
}

const (
	acknowledgeWait = 2 * time.Second // for the others to acknowledge
	acknowledgePoll = 10 * time.Millisecond
)

// A raised event is what is known of it when the program leaves. With JSON, its
// fields are stable.
type raised struct {
	Event        carillon.ID `json:"event"`
	Raiser       carillon.ID `json:"raiser"`
	Providers    []string    `json:"providers"`    // that accepted it
	Listeners    int         `json:"listeners"`    // other live instances that receive events
	Acknowledged int         `json:"acknowledged"` // of them
}

// String returns r for people.
func (r raised) String() string {
	s := fmt.Sprintf("raised %s: handed to %s; ", r.Event, strings.Join(r.Providers, ", "))
	if r.Listeners == 0 {
		return s + "no other instance is listening"
	}
	return s + fmt.Sprintf("acknowledged by %d of %s", r.Acknowledged, plural(r.Listeners, "other instance"))
}

// send raises the event, and waits until it is handed over and, for a while,
// until it is acknowledged.
func (c *raiseCmd) send(ctx context.Context, b *carillon.Broker, raise raiseFunc) (raised, error) {
	b.Enable()
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	r := raised{Raiser: carillon.NewID()}
	var err error
	if r.Event, err = carillon.ParseID(c.Event); err != nil {
		return r, err
	}
	before := framesSent(b)
	if err := raise(ctx, b, r.Raiser); err != nil {
		return r, raiseProblem(err)
	}
	if err := b.Flush(ctx); err != nil {
		err = fmt.Errorf("the event was raised, but not handed over: %w", err)
		if errors.Is(err, context.DeadlineExceeded) {
			return r, &problem{exitTimeout, err, "is the network up? longer: --timeout"}
		}
		return r, err
	}
	r.Listeners, r.Acknowledged = acknowledgements(ctx, b)
	for _, p := range b.Stats().Providers { // after the wait, for one that is slower than the one that was waited for
		if p.Sending && p.FramesSent > before[p.Name] {
			r.Providers = append(r.Providers, p.Name)
		}
	}
	return r, nil
}

// framesSent returns how many frames each transport has accepted.
func framesSent(b *carillon.Broker) map[string]uint64 {
	n := map[string]uint64{}
	for _, p := range b.Stats().Providers {
		n[p.Name] = p.FramesSent
	}
	return n
}

// raiseProblem sorts out why an event was not raised.
func raiseProblem(err error) error {
	switch {
	case errors.Is(err, carillon.ErrTooLarge):
		return &problem{exitUsage, err, ""}
	case errors.Is(err, carillon.ErrUnsent), errors.Is(err, context.DeadlineExceeded):
		return &problem{exitTimeout, err, ""}
	}
	return err
}

// acknowledgements waits until every listener that is alive has acknowledged what
// was handed over, for at most acknowledgeWait. It returns how many live
// listeners there are, and how many of them have acknowledged.
func acknowledgements(ctx context.Context, b *carillon.Broker) (listeners, acknowledged int) {
	ctx, cancel := context.WithTimeout(ctx, acknowledgeWait)
	defer cancel()
	tick := time.NewTicker(acknowledgePoll)
	defer tick.Stop()
	handed := b.Stats().Handed
	asked := map[site.StreamID]bool{} // whoever comes later begins behind the event
	for _, m := range b.Members() {
		asked[m.Stream] = !m.Self && m.Role&carillon.Subscribe != 0
	}
	for {
		reached := map[site.StreamID]bool{}
		for _, p := range b.Stats().Peers {
			reached[p.Source.Stream] = p.Acknowledged.Frame >= handed.Frame
		}
		listeners, acknowledged = 0, 0
		for _, m := range b.Members() {
			switch {
			case !asked[m.Stream]:
			case reached[m.Stream]:
				listeners++
				acknowledged++
			case !m.Lapsed:
				listeners++
			}
		}
		if acknowledged == listeners {
			return listeners, acknowledged
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return listeners, acknowledged
		}
	}
}

// A raiseFunc raises the event with its parameter.
type raiseFunc func(ctx context.Context, b *carillon.Broker, raiser carillon.ID) error

// parameter reads the parameter and returns what raises the event with it.
func (c *raiseCmd) parameter(std streams, id carillon.ID) (raiseFunc, error) {
	untyped := func(v any) raiseFunc {
		return func(ctx context.Context, b *carillon.Broker, raiser carillon.ID) error {
			return b.Event(id).Raise(ctx, raiser, v)
		}
	}
	switch c.As {
	case "", "text", "json", "base64":
	default:
		return nil, &problem{exitUsage, fmt.Errorf("--as %q is not possible", c.As), "choose text, json or base64"}
	}
	if c.Param == nil {
		if c.As != "" {
			return nil, &problem{exitUsage, fmt.Errorf("--as %s says what the parameter is, and there is none", c.As), "write the parameter behind the event's ID, or leave --as away"}
		}
		return untyped(nil), nil
	}
	text := *c.Param
	if text == "-" {
		all, err := io.ReadAll(io.LimitReader(std.in, maxParam+1))
		if err != nil {
			return nil, fmt.Errorf("read the parameter from standard input: %w", err)
		}
		if len(all) > maxParam {
			return nil, &problem{exitUsage, fmt.Errorf("the parameter is longer than %d bytes", maxParam), "send a reference to the data instead"}
		}
		text = string(all)
	}
	switch c.As {
	case "json":
		if !json.Valid([]byte(text)) {
			return nil, &problem{exitUsage, fmt.Errorf("the parameter is not JSON: %.40q", text), `quote it for the shell: '{"id": 1}', or raise it --as text`}
		}
		def := carillon.Define[json.RawMessage](id, "event")
		return func(ctx context.Context, b *carillon.Broker, raiser carillon.ID) error {
			return def.Raise(ctx, b, raiser, json.RawMessage(text))
		}, nil
	case "base64":
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, &problem{exitUsage, fmt.Errorf("the parameter is not base64: %w", err), ""}
		}
		return untyped(data), nil
	}
	if c.As == "" && looksLikeJSON(text) {
		fmt.Fprintln(std.err, "carillon: the parameter looks like JSON and travels as text; an event defined with a type needs --as json (--as text: no warning)")
	}
	return untyped(text), nil
}

// looksLikeJSON reports whether text is a JSON object or array.
func looksLikeJSON(text string) bool {
	t := strings.TrimSpace(text)
	return (strings.HasPrefix(t, "{") || strings.HasPrefix(t, "[")) && json.Valid([]byte(t))
}

// plural returns "1 thing" or "n things".
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
