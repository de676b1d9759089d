package drivers

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/sqlsite"
)

func secret(t testing.TB, fill byte) site.Secret {
	t.Helper()
	s, err := site.NewSecret(bytes.Repeat([]byte{fill}, site.SecretLen))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// with returns a handle on the tables of s.
func (s *store) with(t testing.TB, opts ...sqlsite.Option) *sqlsite.Database {
	return openSite(t, openPool(t, s.driver, s.dsn), append(opts, sqlsite.WithTablePrefix(s.prefix))...)
}

// stored returns what the table of keys has for secrets, by the order of keys.
func (s *store) stored(t testing.TB) [][]byte {
	t.Helper()
	rows, err := s.admin.Query("SELECT secret FROM " + s.prefix + "keys ORDER BY site_id, key_id")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all [][]byte
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			t.Fatal(err)
		}
		all = append(all, bytes.Clone(b))
	}
	return all
}

// grow gives the site a second key.
func grow(t testing.TB, db site.Database) site.Site {
	t.Helper()
	s := mustEnsure(t, db)
	s.Keys = append(s.Keys, site.NewKey(2, site.SuiteAES256GCM))
	s, err := db.ChangeSite(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestKeyEncryption_SecretsRestEncrypted(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		s := newStore(t, e)
		one := sqlsite.KeyEncryption{Key: secret(t, 1), Required: true}
		db := s.with(t, sqlsite.WithKeyEncryption(one))
		want := grow(t, db)
		for i, b := range s.stored(t) {
			if bytes.Contains(b, want.Keys[i].Secret.Reveal()) || len(b) == site.SecretLen {
				t.Errorf("key %d rests as %x", i+1, b)
			}
		}
		again := s.with(t, sqlsite.WithKeyEncryption(one))
		if got := mustEnsure(t, again); !slices.EqualFunc(got.Keys, want.Keys, func(a, b site.Key) bool { return a.Secret.Equal(b.Secret) }) {
			t.Error("another handle with the same key-encryption key reads other secrets")
		}
		// The row of one key does not serve for another.
		mustExec(t, s.admin, fmt.Sprintf("UPDATE %skeys SET secret = (SELECT secret FROM (SELECT * FROM %[1]skeys) x WHERE key_id = 1) WHERE key_id = 2", s.prefix))
		_, err := again.Sites(t.Context())
		wantError(t, "a secret copied into another row", err, site.ErrSecret, "key 2", "altered", "another row")
	})
}

func TestKeyEncryption_SaysWhatIsWrongAndWhatToDo(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		s := newStore(t, e)
		plain := s.with(t)
		want := grow(t, plain)
		one, two := secret(t, 1), secret(t, 2)

		// Plain secrets stay readable until that is refused.
		lax := s.with(t, sqlsite.WithKeyEncryption(sqlsite.KeyEncryption{Key: one}))
		if got := mustEnsure(t, lax); !got.Keys[1].Secret.Equal(want.Keys[1].Secret) {
			t.Error("plain secrets read otherwise with a key-encryption key")
		}
		strict := s.with(t, sqlsite.WithKeyEncryption(sqlsite.KeyEncryption{Key: one, Required: true}))
		_, err := strict.Sites(t.Context())
		wantError(t, "plain secrets where encrypted ones are required", err, site.ErrSecret, "key 1", "not encrypted", "carillon secret encrypt")

		if n, err := strict.EncryptSecrets(t.Context()); n != 2 || err != nil {
			t.Fatalf("EncryptSecrets() = %d, %v", n, err)
		}
		if got := mustEnsure(t, strict); !got.Keys[1].Secret.Equal(want.Keys[1].Secret) {
			t.Error("encrypted secrets are others than before")
		}
		_, err = plain.Sites(t.Context())
		wantError(t, "no key-encryption key", err, site.ErrSecret, "is encrypted", "has no key-encryption key; configure")
		other := s.with(t, sqlsite.WithKeyEncryption(sqlsite.KeyEncryption{Key: two}))
		_, err = other.EnsureSite(t.Context(), "app")
		wantError(t, "another key-encryption key", err, site.ErrSecret, "encrypted under the key-encryption key", "configure the one that the other instances have")
		for _, text := range []string{fmt.Sprintf("%x", one.Reveal()), fmt.Sprintf("%x", two.Reveal())} {
			if strings.Contains(err.Error(), text[:16]) {
				t.Errorf("the error shows a key: %v", err)
			}
		}

		// From one key-encryption key to another, and back to plain.
		next := s.with(t, sqlsite.WithKeyEncryption(sqlsite.KeyEncryption{Key: two, Former: []site.Secret{one}, Required: true}))
		if n, err := next.EncryptSecrets(t.Context()); n != 2 || err != nil {
			t.Fatalf("EncryptSecrets() under another key = %d, %v", n, err)
		}
		if got := mustEnsure(t, other); !got.Keys[1].Secret.Equal(want.Keys[1].Secret) {
			t.Error("secrets under the next key-encryption key are others than before")
		}
		back := s.with(t, sqlsite.WithKeyEncryption(sqlsite.KeyEncryption{Former: []site.Secret{two}}))
		if n, err := back.EncryptSecrets(t.Context()); n != 2 || err != nil {
			t.Fatalf("EncryptSecrets() without a key = %d, %v", n, err)
		}
		if got := mustEnsure(t, plain); !got.Keys[1].Secret.Equal(want.Keys[1].Secret) {
			t.Error("secrets that are plain again are others than before")
		}
	})
}

func TestChangeSite_ForgetsTheSecretsOfEndedKeys(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		s := newStore(t, e)
		db := s.with(t, sqlsite.WithKeyEncryption(sqlsite.KeyEncryption{Key: secret(t, 1), Required: true}))
		grown := grow(t, db)
		grown.Keys[1].State = site.KeyRevoked
		if _, err := db.ChangeSite(t.Context(), grown); err != nil {
			t.Fatal(err)
		}
		if b := s.stored(t); len(b) != 2 || len(b[0]) == 0 || len(b[1]) != 0 {
			t.Errorf("the table has secrets of %d and %d bytes; want that of the revoked key to be gone", len(b[0]), len(b[1]))
		}
		if got := mustEnsure(t, db); !got.Keys[1].Secret.IsZero() {
			t.Error("a revoked key has a secret still")
		}
	})
}

func TestLowestGeneration_RefusesARestoredDatabase(t *testing.T) { // G7
	onEach(t, func(t *testing.T, e engine) {
		s := newStore(t, e)
		grown := grow(t, s.with(t))
		if got := mustEnsure(t, s.with(t, sqlsite.WithLowestGeneration(grown.Generation))); got.Generation != grown.Generation {
			t.Errorf("generation %d, want %d", got.Generation, grown.Generation)
		}
		above := s.with(t, sqlsite.WithLowestGeneration(grown.Generation+1))
		_, err := above.EnsureSite(t.Context(), "app")
		wantError(t, "EnsureSite below the lowest generation", err, site.ErrRestored, fmt.Sprint(grown.Generation+1), "carillon site accept-restore")
		_, err = above.EnsureSite(t.Context(), "a new one")
		wantError(t, "EnsureSite of a new site below the lowest generation", err, site.ErrRestored)
		_, err = above.Sites(t.Context())
		wantError(t, "Sites below the lowest generation", err, site.ErrRestored)
	})
}

func TestAcceptRestore_JumpsAboveWhatWasBefore(t *testing.T) { // G7
	onEach(t, func(t *testing.T, e engine) {
		s := newStore(t, e)
		db := s.with(t)
		before := grow(t, db)
		m := mustJoin(t, db, before)
		snap, err := db.Changes(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		epoch, err := db.NextEpoch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		const lowest = 1 << 40
		sites, err := db.AcceptRestore(t.Context(), lowest)
		if err != nil || len(sites) != 1 {
			t.Fatalf("AcceptRestore() = %+v, %v", sites, err)
		}
		got := sites[0]
		if got.Generation <= lowest || got.Active().ID < 1000 || got.Key(1).State != site.KeyRevoked || got.Key(2).State != site.KeyRevoked || len(got.Keys) != 3 || got.ID != before.ID {
			t.Errorf("the site is %+v", got)
		}
		if read := mustEnsure(t, s.with(t, sqlsite.WithLowestGeneration(lowest+1))); read.Generation != got.Generation || read.Active().ID != got.Active().ID || !read.Active().Secret.Equal(got.Active().Secret) {
			t.Errorf("read back %+v, want %+v", read, got)
		}
		if next, err := db.NextEpoch(t.Context()); err != nil || next < epoch+1<<31 {
			t.Errorf("the next epoch is %d, %v; %d was the last", next, err, epoch)
		}
		// Whoever was ahead before the restore hears of everything.
		later, err := db.Changes(t.Context(), snap.Revision+1<<20)
		if err != nil || len(later.Sites) != 1 || len(later.Members) != 1 || later.Members[0].Stream != m.Stream {
			t.Errorf("the changes after a revision that was lost: %+v, %v", later, err)
		}
		if next, err := db.ChangeSite(t.Context(), got); err != nil || next.Generation <= got.Generation {
			t.Errorf("a change afterwards: %+v, %v", next, err)
		}
	})
}

func TestFork_MakesAnotherSite(t *testing.T) { // G7
	onEach(t, func(t *testing.T, e engine) {
		s := newStore(t, e)
		db := s.with(t)
		before := grow(t, db)
		before.Floors.MACRequired = true
		before, err := db.ChangeSite(t.Context(), before)
		if err != nil {
			t.Fatal(err)
		}
		other, err := db.EnsureSite(t.Context(), "other")
		if err != nil {
			t.Fatal(err)
		}
		theirs := mustJoin(t, db, other)
		m := mustJoin(t, db, before)
		_, err = db.Fork(t.Context(), "app", false)
		wantError(t, "Fork of a site with live instances", err, sqlsite.ErrLive, "1 of site")
		_, err = db.Fork(t.Context(), "nobody", true)
		wantError(t, "Fork of a site that does not exist", err, nil, "nobody")
		s.Advance(t, 2*time.Hour)
		got, err := db.Fork(t.Context(), "app", false)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID == before.ID || got.Name != "app" || got.Generation <= before.Generation || got.Floors != before.Floors || len(got.Keys) != 1 ||
			got.Keys[0].State != site.KeyActive || got.Keys[0].Secret.Equal(before.Keys[0].Secret) {
			t.Errorf("forked %+v to %+v", before, got)
		}
		if read := mustEnsure(t, db); read.ID != got.ID || !read.Keys[0].Secret.Equal(got.Keys[0].Secret) {
			t.Errorf("read back %+v, want %+v", read, got)
		}
		snap, err := db.Changes(t.Context(), 0)
		if err != nil || len(snap.Members) != 1 || snap.Members[0].Stream != theirs.Stream || len(snap.Sites) != 2 {
			t.Errorf("after the fork: %+v, %v; want the member of the other site alone", snap, err)
		}
		if err := db.Renew(t.Context(), m.Stream, site.Renewal{Lease: time.Hour}); err == nil {
			t.Error("the row of a member of the original can be renewed")
		}
		mustJoin(t, db, got)
		if _, err := db.Fork(t.Context(), "app", true); err != nil {
			t.Errorf("by force: %v", err)
		}
	})
}

// TestMigration_UpgradesTablesOfVersion1 runs on tables as the first version made them.
func TestMigration_UpgradesTablesOfVersion1(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		s := newStore(t, e)
		db := s.with(t)
		before := mustEnsure(t, db)
		m := mustJoin(t, db, before)
		for _, statement := range []string{
			"ALTER TABLE %skeys DROP COLUMN until_ms", "ALTER TABLE %skeys DROP COLUMN changed_generation",
			"ALTER TABLE %ssites DROP COLUMN transports", "ALTER TABLE %smembers DROP COLUMN has_providers",
			"ALTER TABLE %smembers DROP COLUMN uses_providers", "ALTER TABLE %smembers DROP COLUMN carries",
			"ALTER TABLE %scounters DROP COLUMN generation", "DELETE FROM %smigrations WHERE version > 1",
			"UPDATE %ssites SET generation = 7",
		} {
			mustExec(t, s.admin, fmt.Sprintf(statement, s.prefix))
		}
		var handles []site.Database
		for range 8 {
			handles = append(handles, s.Open(t))
		}
		errs := make(chan error)
		for _, db := range handles {
			go func() {
				_, err := db.EnsureSite(context.WithoutCancel(t.Context()), "app")
				errs <- err
			}()
		}
		for range handles {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		after := grow(t, handles[0])
		if after.ID != before.ID || after.Generation != 8 || !after.Keys[0].Secret.Equal(before.Keys[0].Secret) || after.Keys[1].Changed != 8 {
			t.Errorf("%+v became %+v; want the same site with one more key, generation 8", before, after)
		}
		if err := handles[1].Renew(t.Context(), m.Stream, site.Renewal{Lease: time.Hour, Witness: [16]byte{1}}); err != nil {
			t.Error(err)
		}
	})
}
