package transports

import (
	"fmt"
	"strings"
	"time"

	"github.com/carillon-go/carillon/site"
)

// Why says in words why an instance does not do yet what the site's transports say, as far as its row tells. It is empty for one
// that does, and is to be read after the name of the instance.
func Why(v View, m site.Member) string {
	t := v.Site.Transports
	if m.Carries >= t.Changed {
		return ""
	}
	var why []string
	if m.Lapsed {
		why = append(why, fmt.Sprintf("has not answered since %s, %v ago: it was killed, or does not reach the database", clock(m.Seen), max(v.Now.Sub(m.Seen), 0).Round(time.Second)))
	}
	lacks := without(t.Receive, m.Providers)
	switch {
	case len(m.Providers) == 0:
		why = append(why, "runs a program that is too old to be moved: update it")
	case len(lacks) > 0:
		why = append(why, fmt.Sprintf("is not configured for %s: have it stand by there, and restart it", list(lacks)))
	case m.Lapsed: // what else it lacks does not matter
	case m.Verifies < t.Changed:
		why = append(why, fmt.Sprintf("has not read the last change yet; it last wrote %v ago", max(v.Now.Sub(m.Seen), 0).Round(time.Second)))
	default:
		why = append(why, fmt.Sprintf("is yet to %s: its log and status say what it waits for", todo(t)))
	}
	return strings.Join(why, "; ")
}

// todo says what an instance that does as t says has done.
func todo(t site.Transports) string {
	switch to := list(t.To); awaited(t) {
	case AwaitReceive:
		return "receive on " + to
	case AwaitBoth:
		return fmt.Sprintf("send on %s, and hear all others on %s", list(t.Send), to)
	case AwaitNew:
		return fmt.Sprintf("send on %s alone", to)
	}
	return "close " + list(without(t.From, t.To))
}
