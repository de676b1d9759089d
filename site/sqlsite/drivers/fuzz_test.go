package drivers

import (
	"testing"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// FuzzSpoiledRows writes anything into the rows of another member and of a key, as a
// restored backup, an operator or an older program may, and reads it back: an error, or
// a row whose parts an instance can live with.
func FuzzSpoiledRows(f *testing.F) {
	f.Add(int64(1), int64(3), int64(0), int64(0), int64(1), int64(1), `{}`, "server", []byte{1, 2}, int64(2), int64(1), int64(1), []byte("short"),
		int64(3), `["nats","udp"]`, `{"receive":["nats","udp"],"send":["udp"],"from":["udp"],"to":["nats"]}`)
	f.Add(int64(-1), int64(99), int64(-1), int64(1)<<48, int64(-5), int64(1)<<62, `{"tcp":["a"]}`, "\x00", []byte{}, int64(300), int64(-1), int64(77), []byte{},
		int64(-1), `["b","a"]`, `{"receive":["a"],"send":["b"],"from":["a"],"to":["a"]}`)
	f.Add(int64(2), int64(1), int64(1)<<62, int64(-1)<<63, int64(0), int64(0), `[`, "", make([]byte, 16), int64(2), int64(1), int64(1), make([]byte, 32),
		int64(1)<<62, `null`, `{"until_ms":7}`)
	pool := openPool(f, "sqlite", sqliteFile(f))
	db := openSite(f, pool, sqlsite.WithTablePrefix("t_"))
	s := mustEnsure(f, db)
	self, other := mustJoin(f, db, s), mustJoin(f, db, s)
	f.Fuzz(func(t *testing.T, state, role, frame, next, verifies, signs int64, addresses, server string, witness []byte, keyState, suite, version int64, secret []byte, carries int64, providers, transports string) {
		mustExec(t, pool, `UPDATE t_members SET state = ?, role = ?, mark_frame = ?, mark_next = ?, verifies = ?, signs = ?, addresses = ?, server = ?, witness = ?, lease_until_ms = ? WHERE stream_id = ?`,
			state, role, frame, next, verifies, signs, addresses, server, witness, frame, other.Stream[:])
		mustExec(t, pool, `UPDATE t_members SET carries = ?, has_providers = ?, uses_providers = ? WHERE stream_id = ?`, carries, providers, providers, other.Stream[:])
		mustExec(t, pool, `UPDATE t_sites SET transports = ?`, transports)
		mustExec(t, pool, `UPDATE t_keys SET state = ?, suite = ?, wire_version = ?, secret = ?`, keyState, suite, version, secret)
		snap, err := db.Snapshot(t.Context(), self.Stream, []site.ID{s.ID})
		if err == nil {
			hold(t, snap)
		}
		if snap, err = db.Changes(t.Context(), 0); err == nil {
			hold(t, snap)
		}
		db.Renew(t.Context(), other.Stream, site.Renewal{Lease: time.Hour})
		db.Sites(t.Context())
	})
}

// hold fails the test when a row that was read breaks what every caller relies on.
func hold(t *testing.T, snap site.Snapshot) {
	t.Helper()
	for _, m := range snap.Members {
		if err := m.Mark.Check(); err != nil {
			t.Errorf("the mark of a row that was read: %v", err)
		}
		if m.Verifies > 1<<63-1 || m.Signs > 1<<63-1 || m.Carries > 1<<63-1 {
			t.Errorf("a row of an instance that verifies %d, signs %d and carries %d", m.Verifies, m.Signs, m.Carries)
		}
		if err := (site.Renewal{Lease: time.Hour, Addresses: m.Addresses, Providers: m.Providers}).Check(); err != nil {
			t.Errorf("the addresses and providers of a row that was read: %v", err)
		}
	}
	for _, s := range snap.Sites {
		if err := s.Transports.Check(); err != nil {
			t.Errorf("the transports of a site that was read: %v", err)
		}
		for _, k := range s.Keys {
			if !k.State.Ended() && k.Secret.IsZero() {
				t.Errorf("key %d (%v) was read without its secret", k.ID, k.State)
			}
		}
	}
}
