package pgbus

import (
	"context"
)

// sendAll sends frames to all other instances of the site.
func (l *link) sendAll(ctx context.Context, frames [][]byte) error {
	payloads, rows, stored, last := l.pack(frames)
	if err := l.notify(ctx, l.p.cfg.toAll(l.env.Site), payloads, rows, stored); err != nil {
		return err
	}
	l.sent.Store(last)
	return nil
}

// send sends frames to a channel.
func (l *link) send(ctx context.Context, channel string, frames [][]byte) error {
	payloads, rows, stored, _ := l.pack(frames)
	return l.notify(ctx, channel, payloads, rows, stored)
}

// pack returns frames as payloads, and those that go into the table, with the numbers of their rows. last is the number of the last payload.
func (l *link) pack(frames [][]byte) (payloads []string, rows []int64, stored [][]byte, last uint32) {
	l.packing.Lock()
	defer l.packing.Unlock()
	w := payloadWriter{next: l.nextHeadLocked}
	for _, f := range frames {
		if len(f) <= inlineBytes {
			w.frame(f)
			continue
		}
		l.row++
		rows, stored = append(rows, int64(l.row)), append(stored, f)
		w.row(l.row)
	}
	w.flush()
	return w.payloads, rows, stored, l.number
}

func (l *link) nextHead() head {
	l.packing.Lock()
	defer l.packing.Unlock()
	return l.nextHeadLocked()
}

// nextHeadLocked returns the head of the next payload. No two of a link are the same for a long time, so no two payloads of a transaction are.
func (l *link) nextHeadLocked() head {
	l.number++
	return head{l.tag, l.number}
}

// notify sends payloads, after it has put frames into the table, in one statement, which is one transaction.
func (l *link) notify(ctx context.Context, channel string, payloads []string, rows []int64, frames [][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, l.p.times.answer)
	defer cancel()
	var err error
	if len(rows) == 0 {
		_, err = l.pool.Exec(ctx, "SELECT pg_notify($1::text, p) FROM unnest($2::text[]) AS p", channel, payloads)
	} else {
		if err := l.table.ensure(ctx); err != nil {
			return err
		}
		l.table.used.Store(true)
		_, err = l.pool.Exec(ctx, "WITH stored AS (INSERT INTO "+l.table.name+" (sender, number, frame) SELECT $3::bigint, n, f FROM unnest($4::bigint[], $5::bytea[]) AS r(n, f)) "+
			"SELECT pg_notify($1::text, p) FROM unnest($2::text[]) AS p", channel, payloads, l.tag.sender(), rows, frames)
	}
	if err != nil {
		if codeOf(err) == undefinedTable {
			l.table.ready.Store(false) // somebody dropped it; the next Send makes it anew
		}
		return l.p.cfg.explain(notifying, err)
	}
	return nil
}
