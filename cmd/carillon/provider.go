package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/carillon-go/carillon/appsettings"
	linked "github.com/carillon-go/carillon/cmd/internal/transports"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/transports"
)

// providerCmd is about what carries the events of a site.
type providerCmd struct {
	List    providerListCmd    `cmd:"" help:"Show what carries the events of a site, and what its instances could use."`
	Migrate providerMigrateCmd `cmd:"" help:"Move a site from one transport to another while its instances run; nothing is lost."`
	Abort   providerAbortCmd   `cmd:"" help:"Give up a move that is under way: back to what carried the events before."`
}

type providerListCmd struct {
	siteFlags
	JSON bool `name:"json" help:"Print JSON."`
}

// A providerInfo is what carries the events of a site. With JSON, its fields are stable.
type providerInfo struct {
	Site       string        `json:"site"`
	Configured bool          `json:"configured"` // nothing was ever moved: each instance uses what it is configured for
	Receive    []string      `json:"receive"`
	Send       []string      `json:"send"`
	Moving     bool          `json:"moving"`
	From       []string      `json:"from,omitempty"` // of the move that is under way
	To         []string      `json:"to,omitempty"`
	Back       bool          `json:"back,omitempty"` // it gives up another one
	Until      *time.Time    `json:"until,omitempty"`
	Members    []memberUsage `json:"members"`
	Others     []memberUsage `json:"others,omitempty"`  // instances of other sites that a move waits for, as they may hear this one
	Problem    string        `json:"problem,omitempty"` // why it is not known what they use
}

// A memberUsage is what one instance has to carry events. With JSON, its fields are stable.
type memberUsage struct {
	memberInfo
	Providers  []string `json:"providers"`     // in use and standing by
	Configured []string `json:"configured"`    // used where nothing was moved
	InStep     bool     `json:"in_step"`       // it does as the site says
	Why        string   `json:"why,omitempty"` // it is not in step, in words
}

func describeUsage(v transports.View) providerInfo {
	t, err := transports.Current(v)
	info := providerInfo{
		Site: v.Site.Name, Configured: v.Site.Transports.IsZero(), Receive: t.Receive, Send: t.Send, Moving: t.Moving(), Members: []memberUsage{},
	}
	if err != nil {
		info.Problem = said(err)
	}
	if info.Moving {
		info.From, info.To, info.Back = t.From, t.To, t.Back
		if !t.Until.IsZero() {
			info.Until = new(t.Until.UTC())
		}
	}
	for _, m := range v.Members {
		why := transports.Why(v, m)
		usage := memberUsage{describe(m), m.Providers, m.Uses, why == "", why}
		switch {
		case m.Site == v.Site.ID:
			info.Members = append(info.Members, usage)
		case why != "":
			info.Others = append(info.Others, usage)
		}
	}
	for _, list := range [][]memberUsage{info.Members, info.Others} {
		slices.SortStableFunc(list, func(a, b memberUsage) int { return a.Joined.Compare(b.Joined) })
	}
	return info
}

// Run implements the command.
func (c *providerListCmd) Run(ctx context.Context, std streams) error {
	ctx, cancel := c.within(ctx)
	defer cancel()
	o, err := c.operate(ctx, std)
	if err != nil {
		return err
	}
	defer o.close()
	v, err := o.view(ctx)
	if err != nil {
		return err
	}
	info := describeUsage(v)
	if c.JSON {
		return printJSON(std.out, info)
	}
	return c.table(std.out, info, v.Now)
}

// view reads what a move goes by.
func (o *operated) view(ctx context.Context) (transports.View, error) {
	snap, err := o.db.Changes(ctx, 0)
	if err != nil {
		return transports.View{}, databaseProblem(o.settings, err)
	}
	return transports.NewView(snap, o.site.Name)
}

// knows returns the problem with names that neither this program nor anything in the site has, so that they are misspelt. A
// transport of the application's own is known from its instances.
func (o *operated) knows(ctx context.Context, wanted []string) error {
	known := linked.Names()
	wanted = slices.DeleteFunc(slices.Clone(wanted), func(name string) bool { return slices.Contains(known, name) })
	if len(wanted) == 0 {
		return nil
	}
	v, err := o.view(ctx)
	if err != nil {
		return err
	}
	t := v.Site.Transports
	has := slices.Concat(t.Receive, t.Send, t.From, t.To)
	for _, m := range v.Members {
		if m.Site == v.Site.ID {
			has = append(has, m.Providers...)
		}
	}
	for _, name := range wanted {
		if !slices.Contains(has, name) {
			return &problem{exitUsage, fmt.Errorf("there is no transport %q: neither this program knows it nor an instance of the site", name), "this program knows: " + strings.Join(known, ", ")}
		}
	}
	return nil
}

func (c *providerListCmd) table(w io.Writer, info providerInfo, now time.Time) error {
	switch {
	case info.Problem != "":
		fmt.Fprintf(w, "site %q: %s\n", info.Site, info.Problem)
	case info.Moving && info.Back:
		fmt.Fprintf(w, "site %q: going back from %s to %s; received: %s; sent on: %s\n", info.Site, names(info.From), names(info.To), names(info.Receive), names(info.Send))
	case info.Moving:
		fmt.Fprintf(w, "site %q: moving from %s to %s; received: %s; sent on: %s\n", info.Site, names(info.From), names(info.To), names(info.Receive), names(info.Send))
	case info.Configured && len(info.Send) == 0:
		fmt.Fprintf(w, "site %q: each instance uses what it is configured for, and none says what that is\n", info.Site)
	case info.Configured:
		fmt.Fprintf(w, "site %q: %s, as configured\n", info.Site, names(info.Send))
	default:
		fmt.Fprintf(w, "site %q: %s, to which it was moved\n", info.Site, names(info.Send))
	}
	if info.Until != nil {
		old := slices.DeleteFunc(slices.Clone(info.Receive), func(name string) bool { return slices.Contains(info.To, name) })
		if info.Until.After(now) {
			fmt.Fprintf(w, "%s stays open until %s, in %s\n", names(old), info.Until.Format("15:04:05 UTC"), info.Until.Sub(now).Round(time.Second))
		} else {
			fmt.Fprintf(w, "%s can be closed since %s; to carry on: %s\n", names(old), info.Until.Format("15:04:05 UTC"), c.command("provider migrate"))
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STATE\tAPPLICATION\tSERVER\tCAN USE\tIN STEP")
	for _, m := range info.Members {
		step := "no"
		if m.InStep {
			step = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", m.State, m.Application, m.Server, names(m.Providers), step)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	// Not in the table, which they would make too wide.
	for _, list := range []struct {
		of   string
		rows []memberUsage
	}{{"", info.Members}, {", of another site,", info.Others}} {
		for _, m := range list.rows {
			if m.Why != "" {
				fmt.Fprintf(w, "%s on %s (%s)%s %s\n", m.Application, m.Server, m.Stream, list.of, m.Why)
			}
		}
	}
	return nil
}

func names(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, ", ")
}

// moveFlags are those of migrate and abort.
type moveFlags struct {
	siteFlags
	Overlap  time.Duration `default:"90s" help:"How long the old transport stays open after the last instance has ceased to send on it. Where a message broker keeps events for longer, as long as that."`
	Patience time.Duration `default:"60s" help:"How long an instance may be lapsed before the command stops, or with --force goes on without it."`
	Force    bool          `help:"Go on without instances whose lease has lapsed. They are cut off from the others if they are alive after all."`
	Wait     time.Duration `default:"15m" help:"How long the whole may take; 0 for ever. The same command carries on later."`
	DryRun   bool          `help:"Print the steps and do nothing."`
	JSON     bool          `name:"json" help:"Print each step as one line of JSON."`
}

// A moveInfo is one step of a move. With JSON, its fields are stable.
type moveInfo struct {
	Step    string       `json:"step"` // subscribe, await-receive, send-both, await-both, send-new, await-new, end, await-end, close, await-close, done; away
	Text    string       `json:"text"`
	From    []string     `json:"from,omitempty"`
	To      []string     `json:"to,omitempty"`
	Until   *time.Time   `json:"until,omitempty"`
	Waiting []memberInfo `json:"waiting,omitempty"`
	Left    []memberInfo `json:"left,omitempty"` // without whom the move goes on
}

func describeMove(s transports.Step) moveInfo {
	info := moveInfo{Step: s.Action.String(), Text: s.String(), From: s.From, To: s.To}
	if !s.Until.IsZero() {
		info.Until = new(s.Until.UTC())
	}
	info.Waiting = describeAll(s.Waiting)
	return info
}

// run moves the site, or shows how it would be.
func (c *moveFlags) run(ctx context.Context, std streams, target transports.Target) error {
	if err := checkTimes(c.Overlap, c.Patience, c.Wait); err != nil {
		return err
	}
	opening, cancel := c.within(ctx)
	defer cancel()
	o, err := c.operate(opening, std)
	if err != nil {
		return err
	}
	defer o.close()
	if err := o.knows(opening, target.To); err != nil {
		return err
	}
	target.Overlap = c.Overlap
	if c.DryRun {
		v, err := o.view(opening)
		if err != nil {
			return err
		}
		plan, err := transports.Plan(v, target)
		if err != nil {
			return c.problem(o.settings, target, err)
		}
		for _, step := range plan {
			info := describeMove(step)
			tellStep(std.out, c.JSON, info, info.Text)
		}
		return nil
	}
	if c.Wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Wait)
		defer cancel()
	}
	options := transports.Options{
		Overlap: c.Overlap, Force: c.Force, Patience: c.Patience,
		Progress: func(p transports.Progress) {
			info := describeMove(p.Step)
			switch {
			case p.Err != nil:
				info = moveInfo{Step: away, Text: awayText(p.Err)}
			case len(p.Left) > 0:
				info.Left, info.Text = describeAll(p.Left), withoutText(p.Left, c.Patience, info.Text)
			}
			tellStep(std.out, c.JSON, info, info.Text)
		},
	}
	if target.Back {
		_, err = transports.Abort(ctx, o.db, o.site.Name, options)
	} else {
		_, err = transports.Move(ctx, o.db, o.site.Name, target.To, options)
	}
	return c.problem(o.settings, target, err)
}

// problem says what to do about a move that did not come to its end.
func (c *moveFlags) problem(s *appsettings.Settings, target transports.Target, err error) error {
	again := c.command("provider migrate")
	if target.Back {
		again = c.command("provider abort")
	}
	if _, ok := errors.AsType[*transports.LapsedError](err); ok {
		return &problem{exitTimeout, err, "where they are: " + c.command("members") + "; without them: " + again + " --force"}
	}
	if _, ok := errors.AsType[*transports.LackError](err); ok {
		return &problem{exitFailed, err, "add it to Carillon:Standby of these instances and restart them one after the other; who has what: " + c.command("provider list")}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return &problem{exitTimeout, err, "wait longer with --wait; what holds an instance up is in its log and status; to go back: " + c.command("provider abort")}
	case errors.Is(err, context.Canceled):
		return &problem{exitFailed, err, "to carry on: " + again}
	case errors.Is(err, transports.ErrUnderWay), errors.Is(err, transports.ErrNothing), errors.Is(err, transports.ErrDiffer):
		return &problem{exitFailed, err, "its state: " + c.command("provider list")}
	case errors.Is(err, site.ErrSchema), errors.Is(err, site.ErrBusy), errors.Is(err, site.ErrSecret):
		return databaseProblem(s, err)
	}
	return err
}

type providerMigrateCmd struct {
	To []string `arg:"" optional:"" help:"The transports to use in the end, such as nats; none carries on with the move that is under way."`
	moveFlags
}

// Help is shown by "carillon provider migrate --help".
func (c *providerMigrateCmd) Help() string {
	return "Every instance must have the new transport configured, in Carillon:Standby, before: one that has not is named, and nothing is changed. Then each subscribes to it, sends on both, sends on the new one alone, and closes the old one; each step waits until every instance has said that it has done the one before. Every step is a state in the site database: the command may be stopped anywhere, and the same command, from any machine, carries on."
}

// Run implements the command.
func (c *providerMigrateCmd) Run(ctx context.Context, std streams) error {
	for _, name := range c.To {
		if name == "" || strings.ContainsAny(name, ", :") {
			return &problem{exitUsage, fmt.Errorf("%q is no name of a transport", name), "name several one behind the other, as in: " + c.command("provider migrate tcp nats")}
		}
	}
	return c.run(ctx, std, transports.Target{To: c.To})
}

type providerAbortCmd struct {
	moveFlags
}

// Help is shown by "carillon provider abort --help".
func (c *providerAbortCmd) Help() string {
	return "Nothing is lost on the way back either. Once the old transport is closed there is nothing to give up: move back with carillon provider migrate."
}

// Run implements the command.
func (c *providerAbortCmd) Run(ctx context.Context, std streams) error {
	return c.run(ctx, std, transports.Target{Back: true})
}
