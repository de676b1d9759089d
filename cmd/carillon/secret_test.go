//go:build unix

package main

import (
	"bufio"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/sqlsite"
)

// A bench is a SQLite file with a site in it, and the program.
type bench struct {
	t    *testing.T
	file string
	env  []string
}

// newBench makes a database with sites of these names.
func newBench(t *testing.T, names ...string) *bench {
	t.Helper()
	b := &bench{t: t, file: filepath.Join(t.TempDir(), "site.db")}
	db := b.open()
	for _, name := range names {
		if _, err := db.EnsureSite(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b *bench) open(opts ...sqlsite.Option) *sqlsite.Database {
	b.t.Helper()
	pool, err := sql.Open("sqlite", b.file)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { pool.Close() })
	db, err := sqlsite.New(pool, opts...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { db.Close() })
	return db
}

// run runs the program on the database.
func (b *bench) run(args ...string) result {
	b.t.Helper()
	return carillonCmd(b.t, append(b.env, "Carillon__Database__Driver=sqlite", "Carillon__Database__Dsn="+b.file), args...)
}

// must runs the program, which must succeed, and looks for texts in what it prints.
func (b *bench) must(args []string, texts ...string) string {
	b.t.Helper()
	r := b.run(args...)
	if r.code != 0 {
		b.t.Fatalf("carillon %v: exit code %d: %s", args, r.code, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(r.out, text) {
			b.t.Errorf("carillon %v does not print %q:\n%s", args, text, r.out)
		}
	}
	return r.out
}

// fails runs the program, which must end with the exit code, and looks for texts
// in what it says.
func (b *bench) fails(code int, args []string, texts ...string) {
	b.t.Helper()
	r := b.run(args...)
	if r.code != code {
		b.t.Errorf("carillon %v: exit code %d, want %d: %s%s", args, r.code, code, r.out, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(r.err, text) {
			b.t.Errorf("carillon %v does not say %q:\n%s", args, text, r.err)
		}
	}
}

func (b *bench) site(name string, opts ...sqlsite.Option) site.Site {
	b.t.Helper()
	sites, err := b.open(opts...).Sites(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, s := range sites {
		if s.Name == name {
			return s
		}
	}
	b.t.Fatalf("there is no site %q", name)
	return site.Site{}
}

func states(s site.Site) string {
	var list []string
	for _, k := range s.Keys {
		list = append(list, fmt.Sprintf("%d %v", k.ID, k.State))
	}
	return strings.Join(list, ", ")
}

func words(line string) []string { return strings.Fields(line) }

func TestSecretRotate_LosesNothingWhileProcessesRun(t *testing.T) { // G5
	ps := newPeers(t, "tcp")
	all := []*peerProcess{ps.start("one"), ps.start("two"), ps.start("three")}
	for _, p := range all {
		p.say("go")
	}
	b := &bench{t: t, file: ps.file}
	out := b.must(words("secret rotate --suite aes-256-gcm --overlap 3s"),
		"store key 2 (aes-256-gcm) as pending", "can verify with key 2", "make key 2 active; key 1 retires", "revoke key 1", "done: key 2 (aes-256-gcm) is in use")
	t.Log(out)
	b.must(words("secret floors --encryption required"), "encryption required")
	b.must(words("secret rotate --overlap 3s"), "done: key 3 (aes-256-gcm) is in use")
	if got := states(b.site("peers")); got != "1 revoked, 2 revoked, 3 active" {
		t.Errorf("the keys are %s", got)
	}
	for _, p := range all {
		eventually(t, patience, p.name+" has raised a thousand events", func() bool { return len(p.report().Raised) >= 1000 })
		p.say("quiet")
	}
	for p, r := range settle(t, all...) {
		if r.Key != 3 || r.Refused != 0 || len(p.misses()) != 0 || len(r.Errors) != 0 || len(r.Raised) < 1000 {
			t.Errorf("%s signs with key %d, refused %d frames, missed %+v, raised %d, errors %v", p.name, r.Key, r.Refused, p.misses(), len(r.Raised), r.Errors)
		}
		for stream, h := range r.Heard {
			if len(h.Twice) != 0 || len(h.Ranges) != 1 {
				t.Errorf("%s heard %v of %s, twice %v", p.name, h.Ranges, stream, h.Twice)
			}
		}
	}
}

func TestSecretRevoke_ReachesRunningProcesses(t *testing.T) { // G5
	ps := newPeers(t, "tcp")
	all := []*peerProcess{ps.start("one"), ps.start("two")}
	b := &bench{t: t, file: ps.file}
	b.fails(exitUsage, words("secret revoke"), "no key is named", "--all")
	b.fails(exitUsage, words("secret revoke 1 --all"), "not both")
	b.fails(exitUsage, words("secret revoke 7"), "no key 7", "secret list")
	b.must(words("secret revoke 1 --dry-run"), "nothing was changed", "compromised")
	if got := states(b.site("peers")); got != "1 active" {
		t.Errorf("after a dry run the keys are %s", got)
	}
	b.must(words("secret revoke --all"), "1    compromised", "2    active")
	b.must(words("secret revoke 1"), "nothing to do")
	for _, p := range all {
		eventually(t, patience, p.name+" signs with key 2", func() bool { return p.report().Key == 2 })
	}
	// The streams are others now, and whole again.
	before := map[string]bool{all[0].inStep.Stream: true, all[1].inStep.Stream: true}
	for _, p := range all {
		p.say("go")
	}
	for _, p := range all {
		eventually(t, patience, p.name+" hears a new stream", func() bool {
			for stream, h := range p.report().Heard {
				if !before[stream] && len(h.Ranges) == 1 && h.Ranges[0][1] > 100 {
					return true
				}
			}
			return false
		})
	}
}

// lapse has the leases of an application's instances end now, as far as the database is concerned.
func lapse(t *testing.T, file, application string) {
	t.Helper()
	pool, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec("UPDATE carillon_members SET lease_until_ms = seen_ms WHERE application = ?", application); err != nil {
		t.Fatal(err)
	}
}

func TestSecretRotate_StopsAtADeadProcess(t *testing.T) {
	ps := newPeers(t, "tcp")
	ps.start("one")
	dead := ps.start("two")
	dead.kill()
	b := &bench{t: t, file: ps.file}
	lapse(t, ps.file, "two")
	rotate := "secret rotate --overlap 1s --patience 2s"
	b.fails(exitTimeout, words(rotate), "no sign of life from two on", "lapsed", "--force", "members")
	if got := states(b.site("peers")); got != "1 active, 2 pending" {
		t.Errorf("the keys are %s; want the rotation to have stopped", got)
	}
	b.fails(exitTimeout, words("secret rotate --wait 1s"), "wait until two on", "the same command carries on", "--wait")
	b.must(words(rotate+" --force"), "going on without 1 instance", "done: key 2")
}

func TestSecretRotate_TellsTheStepsAndDoesNothing(t *testing.T) {
	b := newBench(t, "shop")
	before := b.site("shop")
	b.must(words("secret rotate --dry-run"), "store key 2 (ghash-hmac-sha-256) as pending", "make key 2 active; key 1 retires", "let key 1 verify until", "revoke key 1", "done")
	out := b.must(words("secret rotate --dry-run --json --suite aes-256-gcm"))
	var steps []string
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); {
		var step stepInfo
		if err := json.Unmarshal(lines.Bytes(), &step); err != nil {
			t.Fatalf("%v in %q", err, lines.Text())
		}
		if step.Suite != "aes-256-gcm" || step.Key != 2 {
			t.Errorf("step %+v", step)
		}
		steps = append(steps, step.Step)
	}
	if got := strings.Join(steps, " "); got != "create promote end await-end revoke done" {
		t.Errorf("the steps are %s", got)
	}
	if after := b.site("shop"); after.Generation != before.Generation || len(after.Keys) != 1 {
		t.Errorf("a dry run changed %+v to %+v", before, after)
	}
	b.fails(exitUsage, words("secret rotate --suite rot13"), "rot13", "aes-256-gcm")
	b.fails(exitUsage, words("secret rotate --overlap 0s"), "--overlap")
	b.fails(exitUsage, words("secret rotate --site shopp"), `"shopp"`, "it has: shop")
	b.fails(exitUsage, words("secret rotat"), "carillon", "rotate")
	missing := carillonCmd(t, nil, "secret", "rotate", "--database", "sqlite:nowhere.db")
	if missing.code != exitDatabase {
		t.Errorf("without a database: %+v", missing)
	}
}

func TestSecretList_ShowsNoSecret(t *testing.T) {
	b := newBench(t, "shop", "blog")
	b.must(words("secret rotate --site shop --overlap 1ms"))
	s := b.site("shop")
	out := b.must(words("secret list --site shop"), s.ID.String(), "1    revoked", "2    active   ghash-hmac-sha-256")
	out += b.must(words("secret list --site shop --json"))
	out += b.must(words("site list"), "shop", "blog") + b.must(words("site list --json"))
	secret := s.Keys[1].Secret.Reveal()
	for _, text := range []string{string(secret), fmt.Sprintf("%x", secret), base64.StdEncoding.EncodeToString(secret)} {
		if strings.Contains(out, text) {
			t.Error("a secret is printed")
		}
	}
	var info siteInfo
	if err := json.Unmarshal([]byte(b.must(words("secret list --site shop --json"))), &info); err != nil {
		t.Fatal(err)
	}
	if info.Generation != s.Generation || len(info.Keys) != 2 || info.Keys[1].State != "active" || info.Keys[1].ID != 2 {
		t.Errorf("as JSON it is %+v", info)
	}
	b.fails(exitUsage, words("secret list"), "has several", "blog, shop")
}

func TestSecretFloors_TakesTheWordToWeaken(t *testing.T) { // G5
	b := newBench(t, "shop")
	b.must(words("secret floors"), "wire version 1 or later")
	b.must(words("secret floors --mac required --dry-run"), "nothing was changed", "tags always checked")
	b.must(words("secret floors --mac required"), "tags always checked")
	b.fails(exitUsage, words("secret floors --mac optional"), "weaker", "--weaken")
	if !b.site("shop").Floors.MACRequired {
		t.Error("weakened without the word")
	}
	b.must(words("secret floors --mac optional --weaken"))
	if b.site("shop").Floors.MACRequired {
		t.Error("not weakened with the word")
	}
	b.fails(exitFailed, words("secret floors --encryption required"), "does not encrypt", "secret rotate --suite aes-256-gcm")
	b.fails(exitUsage, words("secret floors --mac perhaps"), "perhaps")
}

func TestSecretEncrypt_PutsTheSecretsUnderTheKey(t *testing.T) {
	b := newBench(t, "shop")
	b.fails(exitUsage, words("secret encrypt"), "no key-encryption key", "openssl rand -base64 32")
	key := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	plain := b.env
	b.env = []string{"Carillon__Database__KeyEncryptionKeys=" + key}
	b.must(words("secret encrypt"), "1 secret of all sites rest encrypted now")
	b.must(words("secret rotate --overlap 1ms"), "done: key 2")
	with := b.env
	b.env = plain
	b.fails(exitDatabase, words("secret list"), "encrypted", "has no key-encryption key", "Carillon:Database:KeyEncryptionKeys")
	b.env = []string{"Carillon__Database__KeyEncryptionKeys=" + base64.StdEncoding.EncodeToString([]byte("another key-encryption key ......"[:32]))}
	b.fails(exitDatabase, words("raise 6f1d2c3b-4a59-4687-b1c2-d3e4f5061728"), "encrypted under the key-encryption key")
	b.env = append(with, "Carillon__Database__Secrets=encrypted")
	b.must(words("secret list"), "2    active")
	b.fails(exitUsage, words("secret encrypt --plain"), "refuses plain secrets")
	b.env = with
	b.must(words("secret encrypt --plain"), "in the clear")
	b.env = plain
	b.must(words("secret list"), "2    active")
}

func TestSiteFork_SeparatesACopy(t *testing.T) { // G7
	ps := newPeers(t, "tcp")
	ps.start("one")
	b := &bench{t: t, file: ps.file}
	b.fails(exitFailed, words("site fork"), "1 of site", "is this really the copy?", "--force")

	image, err := os.ReadFile(ps.file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	copied := &bench{t: t, file: filepath.Join(dir, "copy.db")}
	for _, suffix := range []string{"", "-wal"} {
		if suffix != "" {
			if image, err = os.ReadFile(ps.file + suffix); os.IsNotExist(err) {
				continue
			}
		}
		if err := os.WriteFile(copied.file+suffix, image, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	original := b.site("peers")
	copied.must(words("site fork --force --dry-run"), "nothing was changed", original.ID.String())
	out := copied.must(words("site fork --force"))
	if s := copied.site("peers"); s.ID == original.ID || strings.Contains(out, original.ID.String()) || s.Keys[0].Secret.Equal(original.Keys[0].Secret) {
		t.Errorf("the copy has %+v, the original %+v", s, original)
	}
	copied.must(words("members"), "no instance")
	b.must(words("members"), "live")
	if s := b.site("peers"); s.ID != original.ID || s.Generation != original.Generation {
		t.Errorf("the original became %+v", s)
	}
}

func TestSiteAcceptRestore_LiftsTheRefusal(t *testing.T) { // G7
	b := newBench(t, "shop", "blog")
	const lowest = 41
	b.env = []string{fmt.Sprintf("Carillon__Database__LowestGeneration=%d", lowest)}
	b.fails(exitDatabase, words("secret list --site shop"), "older than it was", "carillon site accept-restore")
	b.fails(exitDatabase, words("raise --site shop 6f1d2c3b-4a59-4687-b1c2-d3e4f5061728"), "carillon site accept-restore")
	b.must(words("site accept-restore --dry-run"), "nothing was changed", "1    active")
	b.fails(exitDatabase, words("secret list --site shop"), "older than it was")
	var infos []siteInfo
	if err := json.Unmarshal([]byte(b.must(words("site accept-restore --json"))), &infos); err != nil {
		t.Fatal(err)
	}
	if len(infos) != 2 || infos[0].Generation <= lowest || infos[1].Generation <= lowest || infos[0].Keys[0].State != "revoked" || infos[0].Keys[1].State != "active" {
		t.Errorf("afterwards: %+v", infos)
	}
	b.must(words("secret list --site shop"), "1      revoked  ", "65538  active ")
}
