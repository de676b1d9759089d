package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/carillon-go/carillon/appsettings"
	linked "github.com/carillon-go/carillon/cmd/internal/transports"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/janitor"
	"github.com/carillon-go/carillon/site"
)

// subscriptionsCmd is about what instances have, and leave behind, at the services of providers.
type subscriptionsCmd struct {
	List  subscriptionsListCmd  `cmd:"" help:"List what the instances of a site have at the services of its providers, and whose it is."`
	Clean subscriptionsCleanCmd `cmd:"" help:"Remove what instances that are gone left behind there."`
}

// A transportMaker makes the providers that the settings name. They are not started; the caller closes them.
type transportMaker func(s *appsettings.Settings, db site.Database) ([]provider.Provider, error)

// configured makes them as an instance does, those that stand by included: the site may have been moved to one.
func configured(s *appsettings.Settings, db site.Database) ([]provider.Provider, error) {
	cfg, err := s.Config(db)
	if err != nil {
		return nil, err
	}
	all := cfg.Providers
	for _, name := range slices.Sorted(maps.Keys(cfg.Standby)) {
		if slices.ContainsFunc(all, func(p provider.Provider) bool { return p.Name() == name }) {
			continue
		}
		p, err := cfg.Standby[name]()
		if err != nil {
			for _, made := range all {
				made.Close()
			}
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

type subscriptionFlags struct {
	siteFlags
	Provider []string       `placeholder:"NAME" help:"Only these: ${transports} (default: those of the configuration, and those that the instances of the site say they use)."`
	Grace    *time.Duration `placeholder:"DURATION" help:"How long a subscription may be there before its instance has a member row; at least two leases (default: two leases, and 2m at least)."`
	JSON     bool           `name:"json" help:"Print JSON."`
}

type subscriptionsListCmd struct{ subscriptionFlags }

// Run implements the command.
func (c *subscriptionsListCmd) Run(ctx context.Context, std streams, transports transportMaker) error {
	all, closeAll, err := c.open(ctx, std, transports, false)
	if err != nil {
		return err
	}
	defer closeAll()
	if len(all) == 0 && !c.JSON {
		return nil // it was said
	}
	list := []subscriptionInfo{}
	for _, k := range all {
		findings, err := k.look(ctx)
		if err != nil {
			return err
		}
		for _, f := range findings {
			list = append(list, k.describe(f))
		}
	}
	if c.JSON {
		return printJSON(std.out, list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(std.out, "there are no subscriptions")
		return err
	}
	return printSubscriptions(std.out, list)
}

type subscriptionsCleanCmd struct {
	subscriptionFlags
	DryRun bool `help:"Print what would be removed and do nothing."`
	Wait   bool `help:"When no member row names a subscription and the service does not say how old it is, look again after --grace."`
}

// Help is shown by "carillon subscriptions clean --help".
func (c *subscriptionsCleanCmd) Help() string {
	return "Leases in the site database decide: what an instance has whose member row is open stays, however slow it is; what only instances that have ended had goes; what no row names goes after --grace, since its instance may be starting. Rows of instances that were killed are closed before, once their lease (Carillon:Limits:Lease) has lapsed for as long again. Running instances do the same every few minutes; this is for a site that does not run, or whose instances may not list and remove."
}

// Run implements the command.
func (c *subscriptionsCleanCmd) Run(ctx context.Context, std streams, transports transportMaker) error {
	all, closeAll, err := c.open(ctx, std, transports, c.DryRun)
	if err != nil {
		return err
	}
	defer closeAll()
	if len(all) == 0 && !c.JSON {
		return nil // it was said
	}
	round, err := c.clean(ctx, all)
	if err != nil || !c.Wait || round.unnamed == 0 {
		return errors.Join(c.print(std.out, round), err)
	}
	fmt.Fprintf(std.err, "carillon: no member row names %s; looking again in %v\n", plural(round.unnamed, "subscription"), *c.Grace)
	pause := time.NewTimer(*c.Grace)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return errors.Join(c.print(std.out, round), context.Cause(ctx))
	}
	again, err := c.clean(ctx, all)
	if !c.DryRun {
		again.gone = append(round.gone, again.gone...)
	}
	return errors.Join(c.print(std.out, again), err)
}

// A cleanRound is what came of looking at all providers.
type cleanRound struct {
	gone          []subscriptionInfo // removed, or with DryRun what would be
	kept, unnamed int                // in use; without a row, so that they may go later
}

func (c *subscriptionsCleanCmd) clean(ctx context.Context, all []keeper) (round cleanRound, err error) {
	for _, k := range all {
		if err := c.cleanAt(ctx, k, &round); err != nil {
			return round, err
		}
	}
	return round, nil
}

func (c *subscriptionsCleanCmd) cleanAt(ctx context.Context, k keeper, round *cleanRound) error {
	if !c.DryRun {
		bounded, cancel := context.WithTimeout(ctx, k.timeout)
		err := k.reap(bounded)
		cancel()
		if err != nil {
			return err
		}
	}
	for {
		findings, err := k.look(ctx)
		if err != nil {
			return err
		}
		gone := slices.DeleteFunc(slices.Clone(findings), func(f janitor.Finding) bool { return !f.Verdict.Goes() })
		if !c.DryRun {
			gone, err = k.Clean(ctx, findings)
		}
		for _, f := range gone {
			round.gone = append(round.gone, k.describe(f))
		}
		if errors.Is(err, janitor.ErrLeft) && len(gone) > 0 {
			continue // there are very many
		}
		for _, f := range findings {
			switch f.Verdict {
			case janitor.InUse:
				round.kept++
			case janitor.Unnamed:
				round.unnamed++
			}
		}
		if err != nil {
			return k.problem(err)
		}
		return nil
	}
}

func (c *subscriptionsCleanCmd) print(w io.Writer, round cleanRound) error {
	if c.JSON {
		if round.gone == nil {
			round.gone = []subscriptionInfo{}
		}
		return printJSON(w, struct {
			DryRun  bool               `json:"dryRun"`
			Removed []subscriptionInfo `json:"removed"`
			InUse   int                `json:"inUse"`
			Unnamed int                `json:"unnamed"`
		}{c.DryRun, round.gone, round.kept, round.unnamed})
	}
	verb := "removed"
	if c.DryRun {
		verb = "nothing was changed; to be removed"
	}
	fmt.Fprintf(w, "%s: %s; in use: %d; without a member row, and perhaps of an instance that is starting: %d\n", verb, plural(len(round.gone), "subscription"), round.kept, round.unnamed)
	if len(round.gone) == 0 {
		return nil
	}
	return printSubscriptions(w, round.gone)
}

// A subscriptionInfo is one subscription. With JSON, its fields are stable.
type subscriptionInfo struct {
	Provider string     `json:"provider"`
	Name     string     `json:"name"`
	State    string     `json:"state"` // in use, ended, unnamed, forgotten; ended and forgotten ones go
	Created  *time.Time `json:"created,omitempty"`
	Server   string     `json:"server,omitempty"` // of the instance whose it is, or was
	Stream   string     `json:"stream,omitempty"`
	Why      string     `json:"why"`
}

func (k *keeper) describe(f janitor.Finding) subscriptionInfo {
	info := subscriptionInfo{Provider: k.name, Name: f.Subscription.Name, State: f.Verdict.String(), Server: f.Row.Server, Why: f.Why()}
	if f.Verdict == janitor.InUse && f.Row.Lapsed {
		lapsed := f.Row.Seen.Add(k.lease).UTC()
		info.Why += fmt.Sprintf("; its lease ran out at %s, and it counts as gone from %s on", lapsed.Format(time.RFC3339), lapsed.Add(k.lease).Format(time.RFC3339))
	}
	if !f.Subscription.Created.IsZero() {
		info.Created = new(f.Subscription.Created.UTC())
	}
	if f.Row.Stream != (site.StreamID{}) {
		info.Stream = f.Row.Stream.String()
	}
	return info
}

func printSubscriptions(w io.Writer, list []subscriptionInfo) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STATE\tPROVIDER\tSUBSCRIPTION\tCREATED\tWHY")
	for _, s := range list {
		created := "-"
		if s.Created != nil {
			created = s.Created.Format(time.RFC3339)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", s.State, s.Provider, s.Name, created, s.Why)
	}
	return t.Flush()
}

// A keeper is the janitor of one provider.
type keeper struct {
	*janitor.Janitor
	name    string
	timeout time.Duration // of one look
	lease   time.Duration // of instances, as far as the settings tell

	reap func(ctx context.Context) error // closes the rows of instances that are gone for good
}

func (k *keeper) look(ctx context.Context) ([]janitor.Finding, error) {
	bounded, cancel := context.WithTimeout(ctx, k.timeout)
	defer cancel()
	findings, err := k.Look(bounded)
	if err != nil {
		return nil, k.problem(err)
	}
	return findings, nil
}

func (k *keeper) problem(err error) error {
	return &problem{exitUnavailable, fmt.Errorf("provider %q: %w", k.name, err), "does the service answer, and may this user list and remove what instances have there?"}
}

// open makes the providers and returns the janitor of each that has something to clean. If none has, it says so. With
// dryRun, rows that [site.Database.Reap] would close count as closed. Closing gives everything back.
func (f *subscriptionFlags) open(ctx context.Context, std streams, transports transportMaker, dryRun bool) (all []keeper, closeAll func(), err error) {
	ctx, cancel := f.within(ctx)
	defer cancel()
	o, err := f.operate(ctx, std)
	if err != nil {
		return nil, nil, err
	}
	lease := leaseOf(o.settings)
	if f.Grace == nil {
		f.Grace = new(janitor.Grace(lease))
	}
	if least := 2 * lease; *f.Grace < least {
		o.close()
		return nil, nil, &problem{exitUsage, fmt.Errorf("--grace %v is less than two leases of %v: what an instance has that is starting could go", *f.Grace, lease), fmt.Sprintf("the least is --grace %v", least)}
	}
	u, err := f.narrow(ctx, o)
	switch {
	case err != nil:
		o.close()
		return nil, nil, err
	case len(f.Provider) > 0 && len(o.settings.Providers) == 0:
		f.nothing(std, u)
		return nil, o.close, nil
	}
	if err := f.switchedOff(o.settings); err != nil {
		o.close()
		return nil, nil, err
	}
	made, err := transports(o.settings, o.db)
	if err != nil {
		o.close()
		return nil, nil, f.unmade(u, err)
	}
	closeAll = func() {
		for _, p := range made {
			p.Close() // it was never started
		}
		o.close()
	}
	rows := func(ctx context.Context) (site.Snapshot, error) {
		snap, err := o.db.Changes(ctx, 0)
		if dryRun {
			asReaped(snap, lease)
		}
		return snap, err
	}
	reap := func(ctx context.Context) error {
		if _, err := o.db.Reap(ctx, lease); err != nil { // as instances do
			return databaseProblem(o.settings, err)
		}
		return nil
	}
	for _, p := range made {
		u.made = append(u.made, p.Name())
		if c, ok := p.(provider.Cleaner); ok {
			all = append(all, keeper{janitor.New(c, o.site.ID, rows, *f.Grace), p.Name(), f.Timeout, lease, reap})
		}
	}
	if strange := u.strange(); len(strange) > 0 {
		err := fmt.Errorf("the site uses %s, which this program does not know: whether anything was left behind there is not known", names(strange))
		if len(all) == 0 {
			closeAll()
			return nil, nil, &problem{exitFailed, err, "to look at others: --provider NAME"}
		}
		fmt.Fprintf(std.err, "carillon: %s\n", err)
	}
	if len(all) == 0 {
		f.nothing(std, u)
	}
	return all, closeAll, nil
}

// asReaped makes of rows whose lease lapsed more than a lease ago what reaping makes of them.
func asReaped(snap site.Snapshot, lease time.Duration) {
	for i := range snap.Members {
		if m := &snap.Members[i]; m.State == site.MemberOpen && m.Lapsed && snap.Now.Sub(m.Seen) > 2*lease {
			m.State = site.MemberReaped
		}
	}
}

// leaseOf returns the lease of an instance with these settings.
func leaseOf(s *appsettings.Settings) time.Duration {
	return cmp.Or(s.Limits.Lease, 30*time.Second) // what carillon.Config has if nothing is said
}

// leavesNothing reports whether it is known of the transport of this name, without making it, that nothing of it stays at a service.
func leavesNothing(name string) bool {
	return slices.Contains(linked.Names(), name) && !slices.Contains(linked.LeaveBehind(), name)
}

// A usage is which transports a command about subscriptions goes by.
type usage struct {
	rows  []string // what the site's rows name, ascending; empty if --provider says it
	added []string // of these, what the configuration does not name and has to be looked at
	made  []string
}

// narrow sets which transports are made: what --provider names, or beside what is configured, where nobody may have said
// anything, what the instances of the site use. A site whose instances leave something behind must not be taken for clean
// because this program runs with other settings than they. None is made that is known to leave nothing behind, unless it is configured.
func (f *subscriptionFlags) narrow(ctx context.Context, o *operated) (u usage, err error) {
	if len(f.Provider) > 0 {
		o.settings.Providers, o.settings.Standby = slices.DeleteFunc(slices.Clone(f.Provider), leavesNothing), nil
		return u, nil
	}
	snap, err := o.db.Changes(ctx, 0)
	if err != nil {
		return u, databaseProblem(o.settings, err)
	}
	t := o.site.Transports
	u.rows = slices.Concat(t.Receive, t.Send, t.From, t.To)
	for _, m := range snap.Members {
		if m.Site == o.site.ID {
			u.rows = slices.AppendSeq(append(u.rows, m.Uses...), maps.Keys(m.Addresses)) // one that follows a move has more than it is configured for
		}
	}
	slices.Sort(u.rows)
	u.rows = slices.Compact(u.rows)
	for _, name := range u.rows {
		if slices.Contains(linked.LeaveBehind(), name) && !slices.Contains(o.settings.Providers, name) && !slices.Contains(o.settings.Standby, name) {
			u.added = append(u.added, name)
		}
	}
	o.settings.Standby = slices.Concat(o.settings.Standby, u.added)
	return u, nil
}

// strange returns what rows name that this program can neither make nor knows to leave nothing behind.
func (u usage) strange() []string {
	return slices.DeleteFunc(slices.Clone(u.rows), func(name string) bool { return slices.Contains(u.made, name) || leavesNothing(name) })
}

// unmade is the problem with transports that could not be made.
func (f *subscriptionFlags) unmade(u usage, err error) error {
	if len(u.added) == 0 {
		return &problem{exitUsage, err, remedy(err, "correct it in "+f.path())}
	}
	return &problem{exitUsage, fmt.Errorf("the site uses %s: %w", names(u.added), err), remedy(err, "give its section, as its instances have it, in "+f.path())}
}

// nothing says that nothing is left behind, and by what that is known; with JSON, to people only.
func (f *subscriptionFlags) nothing(std streams, u usage) {
	w := std.out
	if f.JSON {
		w = std.err
	}
	list, said := f.Provider, "%s %s nothing behind"
	switch {
	case len(f.Provider) > 0:
	case len(u.rows) > 0:
		list, said = u.rows, "the site uses %s, which %s nothing behind"
	default:
		list, said = u.made, "no instance says what the site uses; by your configuration, %s %s nothing behind"
	}
	verb := "leaves"
	if len(list) > 1 {
		verb = "leave"
	}
	fmt.Fprintf(w, said+"; with these, instances do: %s\n", names(list), verb, names(linked.LeaveBehind()))
}
