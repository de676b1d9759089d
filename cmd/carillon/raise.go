package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/carillon-go/carillon"
)

type raiseCmd struct {
	Event string  `arg:"" help:"ID of the event, a GUID."`
	Param *string `arg:"" optional:"" help:"Parameter; none if it is left out, standard input if it is a hyphen."`
	As    string  `default:"text" enum:"text,json,base64" help:"What the parameter is: text, json for an event defined with a type, or base64 for bytes."`
	siteFlags
	providerFlag
	JSON bool `name:"json" help:"Print what was done as JSON."`
}

// maxParam bounds what is read from standard input; an event is at most 16 MiB.
const maxParam = 16 << 20

// Help is shown by "carillon raise --help".
func (c *raiseCmd) Help() string {
	return "Joins the site as a publisher, raises the event, waits until it has been handed over and acknowledged, and leaves."
}

// Run implements the command.
func (c *raiseCmd) Run(ctx context.Context, std streams) error {
	id, err := carillon.ParseID(c.Event)
	if err != nil {
		return &problem{exitUsage, err, ""}
	}
	raise, err := c.parameter(std.in, id)
	if err != nil {
		return err
	}
	b, leave, err := open(ctx, std, &c.siteFlags, &c.providerFlag, carillon.Publish)
	if err != nil {
		return err
	}
	defer leave()
	b.Enable()
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	raiser := carillon.NewID()
	if err := raise(ctx, b, raiser); err != nil {
		if errors.Is(err, carillon.ErrTooLarge) {
			return &problem{exitUsage, err, ""}
		}
		return &problem{exitTimeout, err, ""}
	}
	if err := b.Flush(ctx); err != nil {
		return &problem{exitTimeout, fmt.Errorf("the event was raised, but not handed over within %v: %w", c.Timeout, err), "is the network up? longer: --timeout"}
	}
	others := 0
	for _, m := range b.Members() {
		if !m.Self && !m.Lapsed && m.Role&carillon.Subscribe != 0 {
			others++
		}
	}
	if c.JSON {
		return json.NewEncoder(std.out).Encode(struct {
			Event     carillon.ID `json:"event"`
			Raiser    carillon.ID `json:"raiser"`
			Listeners int         `json:"listeners"`
		}{id, raiser, others})
	}
	_, err = fmt.Fprintf(std.out, "raised %s for %s\n", id, plural(others, "other instance"))
	return err
}

// parameter reads the parameter and returns what raises the event with it.
func (c *raiseCmd) parameter(in io.Reader, id carillon.ID) (func(context.Context, *carillon.Broker, carillon.ID) error, error) {
	untyped := func(v any) func(context.Context, *carillon.Broker, carillon.ID) error {
		return func(ctx context.Context, b *carillon.Broker, raiser carillon.ID) error {
			return b.Event(id).Raise(ctx, raiser, v)
		}
	}
	if c.Param == nil {
		return untyped(nil), nil
	}
	text := *c.Param
	if text == "-" {
		all, err := io.ReadAll(io.LimitReader(in, maxParam+1))
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
	return untyped(text), nil
}

// plural returns "1 thing" or "n things".
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
