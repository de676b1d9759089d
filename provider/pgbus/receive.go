package pgbus

import (
	"context"
	"log/slog"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/carillon-go/carillon/provider"
)

// rowsAtOnce is how many rows are read in one query. It bounds what a stranger can make an instance hold.
const rowsAtOnce = 64

// take delivers what a notification holds, unless it is our own.
func (l *link) take(ctx context.Context, n *pgconn.Notification) {
	h, ok := headOf(n.Payload)
	if !ok {
		return // a stranger's
	}
	if h.from == l.tag {
		l.heard = h.number
		return
	}
	if l.before != nil && h.from == *l.before {
		return // sent through the link before, and committed only now
	}
	items, ok := itemsOf(n.Payload)
	if !ok {
		return
	}
	from := "backend " + strconv.FormatUint(uint64(n.PID), 10)
	for len(items) > 0 {
		var some []item
		some, items = cutAfterRows(items, rowsAtOnce)
		if frames := l.framesOf(ctx, h.from, some); len(frames) > 0 {
			l.env.Deliver(provider.Batch{Frames: frames, From: from})
		}
	}
}

// cutAfterRows cuts items behind the n-th row.
func cutAfterRows(items []item, n int) (some, rest []item) {
	for i := range items {
		if items[i].row == 0 {
			continue
		}
		if n--; n == 0 {
			return items[:i+1], items[i+1:]
		}
	}
	return items, nil
}

// framesOf returns the frames of items in their order. Those that are in the table are read from there; those that are no longer there are counted.
func (l *link) framesOf(ctx context.Context, from tag, items []item) [][]byte {
	var rows []int64
	for _, i := range items {
		if i.row != 0 {
			rows = append(rows, int64(i.row))
		}
	}
	var stored map[int64][]byte
	if len(rows) > 0 {
		stored = l.table.read(ctx, from, rows)
		if missing := len(rows) - len(stored); missing > 0 {
			l.p.lost.Add(uint64(missing))
		}
	}
	frames := make([][]byte, 0, len(items))
	for _, i := range items {
		if i.row == 0 {
			frames = append(frames, i.frame)
		} else if f, ok := stored[int64(i.row)]; ok {
			frames = append(frames, f)
		}
	}
	return frames
}

// logLost says why frames of others are lost, once for each different reason.
func (t *table) logLost(ctx context.Context, frames int, err error) {
	if err.Error() == t.said {
		return
	}
	t.said = err.Error()
	t.link.env.Logger.LogAttrs(ctx, slog.LevelWarn, "frames of others cannot be read", slog.Int(keyFrames, frames), slog.String(keyTable, t.name), slog.Any(keyError, err))
}
