package worker

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/history"
	"github.com/carillon-go/carillon/site"
)

// eventName is what histories call the event.
const eventName = "note"

// Instance returns what histories call a run of an instance.
func Instance(run uint32) string { return fmt.Sprintf("run%d", run) }

// HistoryFile returns the path of the history that a run writes.
func HistoryFile(folder string, run uint32) string {
	return filepath.Join(folder, fmt.Sprintf("run%03d.history", run))
}

// A diary writes down what happens at one instance. It is safe for concurrent use.
type diary struct {
	out     *history.Writer
	name    string
	ordered bool
	codec   noteCodec
	local   atomic.Uint64
	failed  atomic.Pointer[error] // what could not be written
}

func newDiary(cfg Config, codec noteCodec) (*diary, error) {
	out, err := history.Append(HistoryFile(cfg.Folder, cfg.Run))
	if err != nil {
		return nil, err
	}
	return &diary{out: out, name: Instance(cfg.Run), ordered: cfg.Options.Ordered, codec: codec}, nil
}

// write fills in who and when, and appends r.
func (d *diary) write(r history.Record) {
	r.At, r.Instance = time.Duration(time.Now().UnixNano()), d.name
	if err := d.out.Write(&r); err != nil {
		d.failed.CompareAndSwap(nil, &err)
	}
}

// err returns the first thing that could not be written.
func (d *diary) err() error {
	if err := d.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (d *diary) raising(n note) {
	d.write(history.Record{Kind: history.Raise, Seq: n.Seq, Event: eventName, Ordered: d.ordered, Sum: d.codec.sum(n)})
}

func (d *diary) heard(_ context.Context, r carillon.Raised[note]) {
	if r.Local {
		d.local.Add(1)
		return
	}
	d.write(history.Record{
		Kind: history.Raised, From: Instance(r.Parameter.Run), Seq: r.Parameter.Seq, Event: eventName, Sum: r.Parameter.sum,
		Stream: history.Stream(r.Source.Stream), Ordinal: r.Ordinal,
	})
}

func (d *diary) missed(_ context.Context, m carillon.Missed) {
	reason := "several"
	if m.Reason != 0 {
		reason = m.Reason.String()
	}
	r := history.Record{
		Kind: history.Missed, Stream: history.Stream(m.Source.Stream), First: m.First, Last: m.Last,
		Count: m.Count, Exact: m.Exact, Reason: reason,
	}
	if m.Known {
		r.Event = eventName
	}
	d.write(r)
}

func (d *diary) inDoubt(s carillon.Source) {
	d.write(history.Record{Kind: history.InDoubt, Stream: history.Stream(s.Stream)})
}

// stream returns the stream of this instance; zero while it has no member row.
func stream(b *carillon.Broker) site.StreamID {
	for _, m := range b.Members() {
		if m.Self {
			return m.Stream
		}
	}
	return site.StreamID{}
}
