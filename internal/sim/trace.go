package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/carillon-go/carillon/internal/history"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

// print writes a record as a line for people. What an instance raises itself is
// left out: the plan says so.
func (w *world) print(r *history.Record) {
	text := ""
	switch r.Kind {
	case history.Raise, history.Accepted, history.Subscribed, history.Opening, history.Sent:
		if !w.frames {
			return
		}
	}
	switch r.Kind {
	case history.Raised:
		text = fmt.Sprintf("raised %s/%d %s", r.From, r.Seq, r.Event)
	case history.Missed:
		text = fmt.Sprintf("missed %s %d-%d count %d %s", w.nameOf(r.Stream), r.First, r.Last, r.Count, r.Reason)
		if r.Event != "" {
			text += " " + r.Event
		}
		if !r.Exact {
			text += " not exact"
		}
	case history.InDoubt:
		text = "in doubt " + w.nameOf(r.Stream)
	case history.Sent:
		text = fmt.Sprintf("took %d-%d as %d", r.Seq, r.Seq+r.Count-1, r.Ordinal)
	case history.Fault:
		text = "fault: " + r.Note
	case history.Mended:
		text = "mended: " + r.Note
	case history.Raise:
		text = fmt.Sprintf("raise %d %s", r.Seq, r.Event)
	case history.Cloned, history.Erased:
		text = string(r.Kind) + " " + w.nameOf(r.Stream)
	case history.Accepted:
		return
	default:
		text = string(r.Kind)
	}
	w.say(r.Instance, text)
}

func (w *world) say(who, text string) {
	if who != "" {
		who += " "
	}
	fmt.Fprintf(w.trace, "%10s %s%s\n", w.now.Round(time.Microsecond), who, text)
}

// nameOf names a stream by who has it, and which of that instance's streams it
// is unless it is the first.
func (w *world) nameOf(s history.Stream) string {
	for _, in := range w.instances {
		for i, o := range in.own {
			if history.Stream(o) != s {
				continue
			}
			if i > 0 {
				return fmt.Sprintf("%s#%d", in.name, i+1)
			}
			return in.name
		}
	}
	return s.String()
}

func (w *world) traceSent(in *instance, frame []byte) {
	if w.trace != nil && w.frames {
		if h, err := wire.ParseHeader(frame); err == nil {
			w.say(in.name, "→ "+w.describe(h, nil))
		}
	}
}

func (w *world) traceArrived(in *instance, h wire.Header, body []byte) {
	if w.trace != nil && w.frames {
		w.say(in.name, "← "+w.describe(h, body))
	}
}

func (w *world) describe(h wire.Header, body []byte) string {
	s := fmt.Sprintf("%s %d of %s", h.Type, h.Number, w.nameOf(history.Stream(h.Stream)))
	if !h.Type.Control() {
		return s + fmt.Sprintf(", ordinal %d, count %d, key %d", h.Ordinal, h.Count, h.Key)
	}
	if body != nil {
		if c, err := wire.ReadControl(h.Type, body); err == nil {
			s += " " + w.named(fmt.Sprintf("%+v", c))
		}
	}
	return s
}

// named puts names for the streams in a text.
func (w *world) named(text string) string {
	for _, in := range w.instances {
		for _, o := range in.own {
			text = strings.ReplaceAll(text, o.String(), w.nameOf(history.Stream(o)))
		}
	}
	return text
}

// status prints where every instance stands.
func (w *world) status() {
	if w.trace == nil {
		return
	}
	for _, in := range w.instances {
		if in.dead || in.machine == nil {
			continue
		}
		w.say(in.name, fmt.Sprintf("has sent %d/%d", in.machine.Mark().Frame, in.machine.Mark().Next))
		for _, p := range in.machine.Peers() {
			w.say(in.name, "  follows "+w.nameOf(history.Stream(site.StreamID(p.Stream)))+fmt.Sprintf(" base %d/%d low %d high %d gaps %d missed %d acked %d",
				p.Base.Frame, p.Base.Next, p.Low.Frame, p.High.Frame, p.Gaps, p.Missed, p.Acked.Frame))
		}
	}
}
