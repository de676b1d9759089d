package site

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Transports is what the instances of a site carry its events through, by the names of
// providers. The zero Transports leaves that to each instance's configuration.
//
// What is between two sets of transports is said here and nowhere else: an instance subscribes on what
// Receive names and sends on what Send names, whatever it was configured for.
type Transports struct {
	Receive []string // on which every instance is subscribed; ascending
	Send    []string // on which every instance sends; ascending, some of Receive

	// To is what Receive and Send are to become: equal to both unless a move is under way. From is what they were
	// before the last move began. Ascending.
	From, To []string

	Back bool // the move that is under way gives up another one

	// Until is when the subscriptions that To lacks end, by the database's clock, to the millisecond. Zero
	// means that nobody knows yet, because some instance may still send on them.
	Until time.Time

	// Changed is the generation of the last change to the other fields; zero if there was none. The database
	// writes it, and ignores it in what a caller passes in. An instance that
	// [Member.Carries] a generation from this one on does as they say.
	Changed uint64
}

// IsZero reports whether t leaves the transports to the configuration of each instance.
func (t Transports) IsZero() bool { return len(t.Receive) == 0 }

// Moving reports whether a move from one set of transports to another is under way.
func (t Transports) Moving() bool {
	return !slices.Equal(t.Receive, t.To) || !slices.Equal(t.Send, t.To)
}

// Equal reports whether t and o say the same; Changed does not count.
func (t Transports) Equal(o Transports) bool {
	return slices.Equal(t.Receive, o.Receive) && slices.Equal(t.Send, o.Send) && slices.Equal(t.From, o.From) &&
		slices.Equal(t.To, o.To) && t.Back == o.Back && t.Until.Equal(o.Until)
}

// Clone returns a copy that shares no memory with t.
func (t Transports) Clone() Transports {
	t.Receive, t.Send, t.From, t.To = slices.Clone(t.Receive), slices.Clone(t.Send), slices.Clone(t.From), slices.Clone(t.To)
	return t
}

// Check returns an error unless t can be stored: the names are in order and each is there once, there is
// something to send on, and everything that is sent on is received.
func (t Transports) Check() error {
	for _, f := range []struct {
		what  string
		names []string
	}{
		{"received", t.Receive}, {"sent on", t.Send}, {"moved from", t.From}, {"moved to", t.To},
	} {
		if err := checkProviders("the transports that are "+f.what, f.names); err != nil {
			return err
		}
		if (len(f.names) == 0) != t.IsZero() {
			return fmt.Errorf("site: there are no transports that are %s", f.what)
		}
	}
	if t.IsZero() && (t.Back || !t.Until.IsZero()) {
		return errors.New("site: there are no transports, and they are given up")
	}
	if name := lacking(t.Receive, t.Send); name != "" {
		return fmt.Errorf("site: the transport %q is sent on and not received", name)
	}
	return nil
}

// checkTransports returns an error unless the transports of a site that are stored as old may
// become next: at no moment may an instance that has read next send on what one that has read old alone does not
// receive, or the other way round.
func checkTransports(old, next Transports) error {
	if err := next.Check(); err != nil || old.IsZero() || old.Equal(next) {
		return err
	}
	if next.IsZero() {
		return errors.New("site: the transports cannot be left to the configuration again; move to those that it names")
	}
	if name := lacking(old.Receive, next.Send); name != "" {
		return fmt.Errorf("site: the transport %q would be sent on, and not every instance receives it yet", name)
	}
	if name := lacking(next.Receive, old.Send); name != "" {
		return fmt.Errorf("site: the transport %q would be received no longer, and instances may still send on it", name)
	}
	return nil
}

// lacking returns the first of names that is not in list; empty if all are.
func lacking(list, names []string) string {
	for _, n := range names {
		if !slices.Contains(list, n) {
			return n
		}
	}
	return ""
}

func checkProviders(what string, names []string) error {
	if len(names) > MaxProviders {
		return fmt.Errorf("site: %s are %d, more than %d", what, len(names), MaxProviders)
	}
	for i, n := range names {
		if err := checkText("a provider's name", n); err != nil {
			return err
		}
		if n == "" || i > 0 && names[i-1] >= n {
			return fmt.Errorf("site: %s are %q, which are not names in ascending order", what, names)
		}
	}
	return nil
}
