package carillon

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Keys of log attributes.
const (
	keyReason   = "reason"
	keyFrom     = "from" // the transport's word, not proven
	keyProvider = "provider"
	keyCount    = "count" // since the last line of this kind
	keyTotal    = "total" // since Open
	keyError    = "error"
	keyEvent    = "event"
	keyStream   = "stream"
)

// logEvery is the least time between two lines of one kind that others can
// provoke.
const logEvery = time.Second

// A rate lets one call through per logEvery. The zero rate lets the first one
// through. It is safe for concurrent use.
type rate struct {
	last       atomic.Int64 // Unix nanoseconds of the last one let through
	suppressed atomic.Uint64
}

// pass reports whether to go on, and how many were not let through before.
func (r *rate) pass() (suppressed uint64, ok bool) {
	now, last := time.Now().UnixNano(), r.last.Load()
	if last != 0 && now-last < int64(logEvery) || !r.last.CompareAndSwap(last, now) {
		r.suppressed.Add(1)
		return 0, false
	}
	return r.suppressed.Swap(0), true
}

// log logs a warning, unless there was one less than logEvery ago.
func (r *rate) log(log *slog.Logger, msg string, attrs ...any) {
	if n, ok := r.pass(); ok {
		log.Warn(msg, append(attrs, "suppressed", n)...)
	}
}

// dropLevels are the levels of reasons that are not warnings: a matter of
// course on some transports, or of this instance's own doing.
var dropLevels = map[DropReason]slog.Level{
	DropForeignSite: slog.LevelInfo, DropVersion: slog.LevelInfo, DropUnknownStream: slog.LevelInfo,
	DropOwn: slog.LevelDebug, DropDuplicate: slog.LevelDebug, DropLate: slog.LevelDebug,
	DropBeforeBaseline: slog.LevelDebug, DropClosedStream: slog.LevelDebug,
	DropRole: slog.LevelDebug, DropUnasked: slog.LevelDebug, DropClosing: slog.LevelDebug,
}

// drops counts what was dropped, and logs each reason once per logEvery at
// most. It is safe for concurrent use.
type drops struct {
	by [numDropReasons]struct {
		count  atomic.Uint64
		logged atomic.Uint64 // of count
		last   atomic.Int64  // Unix nanoseconds of the last line
	}
	unlogged atomic.Uint32 // bit per reason with logged < count
}

// add counts n drops. It takes no lock and calls nobody.
func (d *drops) add(r DropReason, n uint64) {
	d.by[r].count.Add(n)
	if bit := uint32(1) << r; d.unlogged.Load()&bit == 0 {
		d.unlogged.Or(bit)
	}
}

// log logs what was counted since the last line of its reason. No lock may be
// held.
func (d *drops) log(log *slog.Logger, attrs ...slog.Attr) {
	bits := d.unlogged.Load()
	if bits == 0 {
		return
	}
	now := time.Now().UnixNano()
	for r := range numDropReasons {
		if bits&(1<<r) == 0 {
			continue
		}
		by := &d.by[r]
		last := by.last.Load()
		if last != 0 && now-last < int64(logEvery) || !by.last.CompareAndSwap(last, now) {
			continue
		}
		d.unlogged.And(^(uint32(1) << r))
		total := by.count.Load()
		n := total - by.logged.Swap(total)
		if n == 0 {
			continue
		}
		level, ok := dropLevels[r]
		if !ok {
			level = slog.LevelWarn
		}
		log.LogAttrs(context.Background(), level, "dropped", append(attrs,
			slog.String(keyReason, r.String()), slog.Uint64(keyCount, n), slog.Uint64(keyTotal, total))...)
	}
}

// misses leaves what was missed to the log, in one line per logEvery at most.
// It is safe for concurrent use.
type misses struct {
	mu      sync.Mutex // guards the fields below
	pending Missed     // nothing if Reports is 0
	last    time.Time
}

func (l *misses) add(m *Missed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending.Reports == 0 {
		l.pending = *m
	} else {
		l.pending.merge(m)
	}
}

// log logs what was added since the last line. No lock may be held.
func (l *misses) log(log *slog.Logger) {
	l.mu.Lock()
	m := l.pending
	now := time.Now()
	if m.Reports == 0 || !l.last.IsZero() && now.Sub(l.last) < logEvery {
		l.mu.Unlock()
		return
	}
	l.pending, l.last = Missed{}, now
	l.mu.Unlock()
	attrs := []any{keyCount, m.Count, keyReason, m.Reason.String(), "reports", m.Reports}
	if m.Known {
		attrs = append(attrs, keyEvent, m.Event)
	}
	if m.Source != (Source{}) {
		attrs = append(attrs, keyStream, m.Source.Stream, "server", m.Source.Server, "first", m.First, "last", m.Last)
	}
	log.Warn("events missed", attrs...)
}

// logDropped leaves to the log what was dropped and missed since it last did. No lock may
// be held.
func (b *Broker) logDropped(attrs ...slog.Attr) {
	b.drops.log(b.log, attrs...)
	b.misses.log(b.log)
	b.logNotes()
}

// A note is a log record that waits until the Broker's mutex is free: what the
// application logs with may call the Broker.
type note struct {
	level slog.Level
	text  string
	attrs []any
}

// sayLocked has something logged soon. b.mu is held.
func (b *Broker) sayLocked(level slog.Level, text string, attrs ...any) {
	b.notes = append(b.notes, note{level, text, attrs})
	b.noted.Store(true)
}

// logNotes logs what waits. b.mu is not held.
func (b *Broker) logNotes() {
	if !b.noted.Swap(false) {
		return
	}
	b.mu.Lock()
	notes := b.notes
	b.notes = nil
	b.mu.Unlock()
	for _, n := range notes {
		b.log.Log(context.Background(), n.level, n.text, n.attrs...)
	}
}
