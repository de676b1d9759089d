// Package janitor decides which subscriptions at a service belong to instances that
// are gone, and removes them. Leases in the site database decide, and
// nothing else: not how much waits in a subscription, nor how long nobody read it.
//
// Package carillon runs a [Janitor] for every provider that is a [provider.Cleaner], and the program
// carillon has a command. Applications need neither.
package janitor

import (
	"fmt"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

// A Verdict says what is to be done with a subscription, and why. The zero value is none.
type Verdict uint8

const (
	_         Verdict = iota
	InUse             // an open row names it, whether or not its lease has lapsed: it stays
	Ended             // only rows of instances that have ended name it: it goes
	Unnamed           // no row names it, and its instance may be starting: it stays for now
	Forgotten         // no row has named it for the grace: it goes
)

var verdicts = [...]string{InUse: "in use", Ended: "ended", Unnamed: "unnamed", Forgotten: "forgotten"}

// String returns the verdict in a word or two: "in use".
func (v Verdict) String() string {
	if int(v) < len(verdicts) && v != 0 {
		return verdicts[v]
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// Goes reports whether a subscription of this verdict is removed.
func (v Verdict) Goes() bool { return v == Ended || v == Forgotten }

// A Finding is what was found out about one subscription.
type Finding struct {
	Subscription provider.Subscription
	Verdict      Verdict
	Row          site.Member   // that names it: an open one if there is one; zero if none does
	Unnamed      time.Duration // for how long no row has named it, as far as is known; 0 if one does
}

// Why says in words why it goes or stays.
func (f Finding) Why() string {
	switch f.Verdict {
	case InUse:
		return fmt.Sprintf("instance %v on %q has it", f.Row.Stream, f.Row.Server)
	case Ended:
		if f.Row.State == site.MemberReaped {
			return fmt.Sprintf("the lease of instance %v on %q ran out", f.Row.Stream, f.Row.Server)
		}
		return fmt.Sprintf("instance %v on %q has ended", f.Row.Stream, f.Row.Server)
	case Unnamed:
		return "no member row names it; its instance may be starting"
	}
	return fmt.Sprintf("no member row has named it for %v", f.Unnamed.Round(time.Second))
}

// A Look is what there was to see.
type Look struct {
	Provider string  // its name, under which rows have addresses
	Site     site.ID // whose subscriptions they are

	// Subscriptions were listed before Rows was read. In the other order an instance
	// that started in between would look like one that is gone.
	Subscriptions []provider.Subscription

	// Rows is one consistent read of all rows in any state: [site.Database.Changes] since 0.
	Rows site.Snapshot

	// Grace is how long a subscription may be there before its instance has a row.
	Grace time.Duration

	// Unnamed is for how long each subscription has been without a row, as far as
	// earlier looks have seen.
	Unnamed map[string]time.Duration
}

// Judge returns a finding for each subscription, in their order. It changes nothing and depends on
// nothing else.
func (l Look) Judge() []Finding {
	rows := map[string]site.Member{}
	for _, m := range l.Rows.Members {
		open := m.State == site.MemberOpen
		// What an instance of another site has in use is not ours to remove, whoever listed it here.
		if m.Site != l.Site && !open {
			continue
		}
		for _, name := range m.Addresses[l.Provider] {
			if had, ok := rows[name]; !ok || open && had.State != site.MemberOpen {
				rows[name] = m
			}
		}
	}
	findings := make([]Finding, len(l.Subscriptions))
	for i, sub := range l.Subscriptions {
		f := Finding{Subscription: sub}
		row, named := rows[sub.Name]
		switch {
		case named && row.State == site.MemberOpen:
			f.Verdict, f.Row = InUse, row
		case named:
			f.Verdict, f.Row = Ended, row
		default:
			f.Unnamed = l.unnamed(sub)
			f.Verdict = Unnamed
			if f.Unnamed >= l.Grace {
				f.Verdict = Forgotten
			}
		}
		findings[i] = f
	}
	return findings
}

// unnamed returns for how long sub has had no row: since it was created, or since it was first seen so, whichever is
// longer. It has none now.
func (l Look) unnamed(sub provider.Subscription) time.Duration {
	d := l.Unnamed[sub.Name]
	if !sub.Created.IsZero() {
		d = max(d, l.Rows.Now.Sub(sub.Created))
	}
	return d
}
