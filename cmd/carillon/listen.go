package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/carillon-go/carillon"
)

type listenCmd struct {
	Events []string `arg:"" optional:"" name:"event" help:"IDs of the events to print; all if there is none."`
	siteFlags
	providerFlag
	Count int           `placeholder:"N" help:"End after so many events."`
	For   time.Duration `placeholder:"DURATION" help:"End after so long; with --count, not having heard enough is exit code 5."`
	JSON  bool          `name:"json" help:"Print one JSON object a line."`
}

// Help is shown by "carillon listen --help".
func (c *listenCmd) Help() string {
	return "Joins the site as a subscriber and prints the events that other instances raise, and those that are missed, until Ctrl-C."
}

// A heard event is one line of output. With JSON, its fields are stable.
type heard struct {
	Time        time.Time       `json:"time"`
	Kind        string          `json:"kind"` // raised, missed
	Event       *carillon.ID    `json:"event,omitempty"`
	Raiser      *carillon.ID    `json:"raiser,omitempty"`
	Server      string          `json:"server,omitempty"`
	Application string          `json:"application,omitempty"`
	Text        *string         `json:"text,omitempty"`   // a parameter that is text
	Data        json.RawMessage `json:"data,omitempty"`   // one that is JSON
	Base64      *string         `json:"base64,omitempty"` // one that is neither
	Count       uint64          `json:"count,omitempty"`  // of events missed
	Reason      string          `json:"reason,omitempty"` // why
}

// Run implements the command.
func (c *listenCmd) Run(ctx context.Context, std streams) error {
	wanted := map[carillon.ID]bool{}
	for _, s := range c.Events {
		id, err := carillon.ParseID(s)
		if err != nil {
			return &problem{exitUsage, err, ""}
		}
		wanted[id] = true
	}
	if c.Count < 0 || c.For < 0 {
		return &problem{exitUsage, errors.New("--count and --for cannot be negative"), ""}
	}
	b, leave, err := open(ctx, std, &c.siteFlags, &c.providerFlag, carillon.Subscribe)
	if err != nil {
		return err
	}
	defer func() {
		if err := leave(); err != nil {
			fmt.Fprintf(std.err, "carillon: leaving the site: %s\n", said(err))
		}
	}()

	p := &printer{w: std.out, json: c.JSON, left: c.Count, full: make(chan struct{})}
	b.OnReceived(func(r carillon.Received) {
		if len(wanted) == 0 || wanted[r.Event] {
			p.print(received(r), true)
		}
	})
	missed := func(_ context.Context, m carillon.Missed) { p.print(missing(m), false) }
	for id := range wanted {
		b.Event(id).OnMissed(missed)
	}
	if len(wanted) == 0 {
		// Losses of events whose IDs cannot be known are told to whoever listens
		// for losses at all.
		b.Event(carillon.NewID()).OnMissed(missed)
	}
	b.Enable()

	others := -1
	for _, m := range b.Members() {
		if !m.Lapsed {
			others++
		}
	}
	fmt.Fprintf(std.err, "listening to %s; Ctrl-C ends\n", plural(max(others, 0), "other instance"))

	var over <-chan time.Time
	if c.For > 0 {
		t := time.NewTimer(c.For)
		defer t.Stop()
		over = t.C
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var away outages
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.full:
			return p.failure()
		case now := <-look.C:
			for _, line := range away.ended(now, b.Stats().Providers) {
				fmt.Fprintln(std.err, line)
			}
		case <-over:
			if n := p.missing(); n > 0 {
				return &problem{exitTimeout, fmt.Errorf("within %v, %s of %d did not come", c.For, plural(n, "event"), c.Count), ""}
			}
			return nil
		}
	}
}

func received(r carillon.Received) heard {
	h := heard{
		Time: r.Sent, Kind: "raised", Event: &r.Event, Raiser: &r.Raiser,
		Server: r.Source.Server, Application: r.Source.Application,
	}
	// An event without a type says in its first byte what follows; one with a
	// type has its codec's bytes, mostly JSON.
	switch kind, rest := first(r.Payload); {
	case kind == 0 && len(rest) == 0:
	case kind == 2 && utf8.Valid(rest):
		h.Text = new(string(rest))
	case kind == 1:
		h.Base64 = new(base64.StdEncoding.EncodeToString(rest))
	case json.Valid(r.Payload):
		h.Data = json.RawMessage(r.Payload)
	default:
		h.Base64 = new(base64.StdEncoding.EncodeToString(r.Payload))
	}
	return h
}

func first(payload []byte) (kind int, rest []byte) {
	if len(payload) == 0 {
		return -1, nil
	}
	return int(payload[0]), payload[1:]
}

func missing(m carillon.Missed) heard {
	h := heard{
		Time: time.Now(), Kind: "missed", Count: m.Count, Reason: m.Reason.String(),
		Server: m.Source.Server, Application: m.Source.Application,
	}
	if m.Known {
		h.Event = &m.Event
	}
	return h
}

// line returns h for people.
func (h heard) line() string {
	var b strings.Builder
	b.WriteString(h.Time.Local().Format("15:04:05.000"))
	from := h.Application
	if h.Server != "" {
		from += "@" + h.Server
	}
	if h.Kind == "missed" {
		what := plural(int(h.Count), "event")
		if h.Count == 0 {
			what = "events, nobody knows how many,"
		}
		fmt.Fprintf(&b, "  missed  %s", what)
		if h.Event != nil {
			fmt.Fprintf(&b, " %s", h.Event)
		}
		if from != "" {
			fmt.Fprintf(&b, "  from %s", from)
		}
		fmt.Fprintf(&b, ": %s", h.Reason)
		return b.String()
	}
	fmt.Fprintf(&b, "  raised  %s  by %s", h.Event, from)
	switch {
	case h.Text != nil:
		fmt.Fprintf(&b, "  %q", *h.Text)
	case h.Data != nil:
		fmt.Fprintf(&b, "  %s", h.Data)
	case h.Base64 != nil:
		fmt.Fprintf(&b, "  base64 %s", *h.Base64)
	}
	return b.String()
}

// A printer writes lines, and says when there were enough. It is safe for
// concurrent use.
type printer struct {
	w    io.Writer
	json bool

	mu   sync.Mutex
	left int           // events until it is enough; 0 or less: never
	full chan struct{} // closed when it is enough, or when nobody reads any more
	err  error
	done bool
}

func (p *printer) print(h heard, counts bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return
	}
	if p.json {
		p.err = json.NewEncoder(p.w).Encode(h)
	} else {
		_, p.err = fmt.Fprintln(p.w, h.line())
	}
	if counts && p.left > 0 {
		if p.left--; p.left == 0 {
			p.done = true
		}
	}
	if p.err != nil {
		p.done = true
	}
	if p.done {
		close(p.full)
	}
}

func (p *printer) missing() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left
}

func (p *printer) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}
