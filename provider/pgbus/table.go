package pgbus

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/carillon-go/carillon/provider/uplink"
)

// A table holds frames that are too large for a payload, for as long as it takes everybody to read them.
type table struct {
	link *link
	name string // as SQL

	ready atomic.Bool // it is there, and all rights to it
	used  atomic.Bool // there may be rows to remove

	said  string // what logLost said last; used by who receives alone
	swept string // what sweepUntil said last; used by it alone
}

// columns is the table. It is not written to the log of the server: who was not there when a frame was sent is not told of it, and a crash ends all connections. What is
// stored is random to look at, so nothing tries to compress it.
//
// The second index finds old rows. It is a constraint so that it comes with the table, or not at all.
const columns = `(sender bigint NOT NULL, number bigint NOT NULL, made timestamptz NOT NULL DEFAULT now(), frame bytea NOT NULL, PRIMARY KEY (sender, number), UNIQUE (made, sender, number))`

// schema makes the table, for who has no right to let an instance do it.
func schema(name string) []string {
	return []string{
		"CREATE UNLOGGED TABLE IF NOT EXISTS " + name + " " + columns,
		"ALTER TABLE " + name + " ALTER COLUMN frame SET STORAGE EXTERNAL",
	}
}

// ensure makes sure that the table is there, with the rights that are needed.
func (t *table) ensure(ctx context.Context) error {
	if t.ready.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.link.p.times.answer)
	defer cancel()
	s := &t.link.p.cfg
	var there bool
	err := t.link.pool.QueryRow(ctx, "SELECT to_regclass($1::text) IS NOT NULL", t.name).Scan(&there)
	if err == nil && !there {
		err = t.create(ctx)
		if codeOf(err) == insufficientPrivilege {
			return uplink.NewTrouble(fmt.Sprintf("postgres: make the table %s in %s: the user %q lacks a right (%s); let somebody who has it run: %s; %s",
				t.name, s.where(), s.user, messageOf(err), strings.Join(schema(t.name), "; "), s.grant()), err)
		}
	}
	if err != nil {
		return s.explain(storing, err)
	}
	var missing string
	err = t.link.pool.QueryRow(ctx, "SELECT concat_ws(', ', CASE WHEN NOT has_table_privilege($1::text, 'INSERT') THEN 'INSERT' END, "+
		"CASE WHEN NOT has_table_privilege($1::text, 'SELECT') THEN 'SELECT' END, CASE WHEN NOT has_table_privilege($1::text, 'DELETE') THEN 'DELETE' END)", t.name).Scan(&missing)
	switch {
	case err != nil:
		return s.explain(storing, err)
	case missing != "":
		return uplink.NewTrouble(fmt.Sprintf("postgres: %s %s: the user %q lacks a right to %s (%s); %s", storing, s.where(), s.user, t.name, missing, s.grant()), nil)
	}
	t.ready.Store(true)
	t.used.Store(true) // what earlier instances left
	return nil
}

// create makes the table unless it is there, with a lock that all hold who make it: without one, two of them at once end in an error. Whether it is there may be
// looked up once more only by CREATE TABLE itself: to_regclass answers from a cache that the lock does not refresh.
func (t *table) create(ctx context.Context) error {
	h := fnv.New64a()
	h.Write([]byte("carillon makes " + t.name))
	return pgx.BeginFunc(ctx, t.link.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1::bigint)", int64(h.Sum64())); err != nil {
			return err
		}
		for _, statement := range schema(t.name) {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
}

// read returns the frames in rows of a sender by their numbers. Rows that are gone are missing in it, as are all of them when the
// table cannot be read, which is logged.
func (t *table) read(ctx context.Context, from tag, rows []int64) map[int64][]byte {
	ctx, cancel := context.WithTimeout(ctx, t.link.p.times.answer)
	defer cancel()
	t.used.Store(true)
	got := make(map[int64][]byte, len(rows))
	// A larger frame than anybody may send is a stranger's.
	found, err := t.link.pool.Query(ctx, "SELECT number, frame FROM "+t.name+" WHERE sender = $1::bigint AND number = ANY($2::bigint[]) AND octet_length(frame) <= $3::int", from.sender(), rows, maxFrameBytes)
	if err == nil {
		var number int64
		var frame []byte
		_, err = pgx.ForEachRow(found, []any{&number, &frame}, func() error {
			got[number] = frame // memory of its own, says the library
			return nil
		})
	}
	switch {
	case ctx.Err() != nil && t.link.ctx.Err() != nil:
	case err != nil:
		t.logLost(ctx, len(rows), t.link.p.cfg.explain(reading, err))
		if codeOf(err) == undefinedTable {
			t.ready.Store(false)
		}
	case len(got) < len(rows):
		t.logLost(ctx, len(rows)-len(got), errors.New("postgres: rows were removed before this instance came to read them; was it, or the server, very busy?"))
	default:
		t.said = ""
	}
	return got
}

// sweepBatch is how many rows one statement removes.
const sweepBatch = 100

// sweepUntil removes old rows from time to time, whoever made them, until ctx ends. All instances do.
func (t *table) sweepUntil(ctx context.Context) {
	every := t.link.p.times.sweep
	for {
		wait := time.NewTimer(every/2 + rand.N(every))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
		if !t.used.Load() {
			continue
		}
		err := t.sweep(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		if err.Error() != t.swept { // who may only read leaves it to others
			t.swept = err.Error()
			t.link.env.Logger.LogAttrs(ctx, slog.LevelWarn, "old frames cannot be removed", slog.String(keyTable, t.name), slog.Any(keyError, t.link.p.cfg.explain(storing, err)))
		}
	}
}

// sweep removes the rows that are old.
func (t *table) sweep(ctx context.Context) error {
	t.used.Store(false) // again true for what is stored from now on
	for {
		ctx, cancel := context.WithTimeout(ctx, t.link.p.times.answer)
		tag, err := t.link.pool.Exec(ctx, "DELETE FROM "+t.name+" WHERE (sender, number) IN (SELECT sender, number FROM "+t.name+
			" WHERE made < now() - make_interval(secs => $1::float8) ORDER BY made LIMIT $2::int FOR UPDATE SKIP LOCKED)", t.link.p.times.keep.Seconds(), sweepBatch)
		cancel()
		if err != nil {
			return err
		}
		if tag.RowsAffected() < sweepBatch {
			break
		}
	}
	var left bool
	if err := t.link.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+t.name+")").Scan(&left); err != nil {
		return err
	}
	if left {
		t.used.Store(true)
	}
	return nil
}
