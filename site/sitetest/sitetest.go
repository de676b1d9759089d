// Package sitetest checks that a [site.Database] keeps its contract. It is for
// those who write one; call [Run] from a test.
package sitetest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/carillon-go/carillon/site"
)

// A Store is one site database, empty at first, that several handles share as
// several processes do.
type Store interface {
	// Open returns another handle, which the store closes when t ends. Its state is its
	// own: what it has cached or connected, another handle has not.
	Open(t testing.TB) site.Database

	// Advance makes d pass by the database's clock, or has the same effect on
	// what is stored: every stored time lies d further back.
	Advance(t testing.TB, d time.Duration)
}

// Run checks every sentence of [site.Database], each in a subtest with a store of its own
// from newStore. Subtests run one after the other. Under the race detector it also
// finds a Database that is not safe for concurrent use.
func Run(t *testing.T, newStore func(t testing.TB) Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Store)
	}{
		{"EnsureSite_CreatesOnce", ensureSiteCreatesOnce},
		{"EnsureSite_RefusesBadNames", ensureSiteRefusesBadNames},
		{"EnsureSite_ManyAtOnceAgree", ensureSiteManyAtOnceAgree},
		{"Sites_AreSortedByName", sitesAreSortedByName},
		{"ChangeSite_StoresKeysAndFloors", changeSiteStoresKeysAndFloors},
		{"ChangeSite_OneOfManyWins", changeSiteOneOfManyWins},
		{"ChangeSite_RefusesWhatIsNotAllowed", changeSiteRefusesWhatIsNotAllowed},
		{"ChangeSite_CountsGenerationsOfAllSites", changeSiteCountsGenerationsOfAllSites},
		{"ChangeSite_StoresTransports", changeSiteStoresTransports},
		{"ChangeSite_RefusesTransportsThatLose", changeSiteRefusesTransportsThatLose},
		{"NextEpoch_NeverRepeats", nextEpochNeverRepeats},
		{"Join_StoresTheMember", joinStoresTheMember},
		{"Join_StoresWhatAnInstanceCarries", joinStoresWhatAnInstanceCarries},
		{"Join_RefusesWhatCannotBeStored", joinRefusesWhatCannotBeStored},
		{"Join_NeverReusesAStream", joinNeverReusesAStream},
		{"Snapshot_HasOpenRowsOfItsSites", snapshotHasOpenRowsOfItsSites},
		{"Snapshot_MustSeeItsOwnRow", snapshotMustSeeItsOwnRow},
		{"Changes_ReportEveryChange", changesReportEveryChange},
		{"Changes_ReportSitesWhenOneChanged", changesReportSitesWhenOneChanged},
		{"Changes_FromTheFutureAreStale", changesFromTheFutureAreStale},
		{"Changes_MissNothingUnderLoad", changesMissNothingUnderLoad},
		{"Renew_WritesAndExtends", renewWritesAndExtends},
		{"Renew_KeepsTheWitness", renewKeepsTheWitness},
		{"Renew_NeverGoesBack", renewNeverGoesBack},
		{"Renew_FindsTheRowGone", renewFindsTheRowGone},
		{"Renew_RefusesWhatCannotBeStored", renewRefusesWhatCannotBeStored},
		{"Leave_ClosesWithTheFinalMark", leaveClosesWithTheFinalMark},
		{"Leave_TwiceOrReapedIsNoError", leaveTwiceOrReapedIsNoError},
		{"Reap_WaitsForLeaseAndGrace", reapWaitsForLeaseAndGrace},
		{"Reap_OneCallerClosesARow", reapOneCallerClosesARow},
		{"Reap_RemovesTombstonesAfterADay", reapRemovesTombstonesAfterADay},
		{"ClientAddr_IsAnAddress", clientAddrIsAnAddress},
		{"Methods_ReturnWhenTheContextIsDone", methodsReturnWhenTheContextIsDone},
		{"Answers_BelongToTheCaller", answersBelongToTheCaller},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, newStore(t)) })
	}
}

const hour = time.Hour

// A fixture is what most checks begin with: a handle and a site.
type fixture struct {
	t     *testing.T
	store Store
	db    site.Database
	site  site.Site
	next  uint64 // random half of the next stream
}

func newFixture(t *testing.T, store Store) *fixture {
	t.Helper()
	f := &fixture{t: t, store: store, db: store.Open(t)}
	f.site = f.ensure("app")
	return f
}

func (f *fixture) ensure(name string) site.Site {
	f.t.Helper()
	s, err := f.db.EnsureSite(f.t.Context(), name)
	if err != nil {
		f.t.Fatalf("EnsureSite(%q): %v", name, err)
	}
	return s
}

// member returns a member that can join, with a stream that nobody has.
func (f *fixture) member() site.Member {
	f.next++
	return site.Member{
		Site:        f.site.ID,
		Stream:      site.NewStreamID(1<<40, f.next),
		Server:      "server-1",
		Application: "app",
		Version:     "1.2.3",
		Role:        site.RolePublish | site.RoleSubscribe,
		Addresses:   map[string][]string{"tcp": {"10.0.0.1:7070", "[::1]:7070"}, "udp": {}},
		Verifies:    1,
		Signs:       1,
	}
}

func (f *fixture) join(lease time.Duration) site.Member {
	f.t.Helper()
	m := f.member()
	f.joinAs(m, lease)
	return m
}

func (f *fixture) joinAs(m site.Member, lease time.Duration) {
	f.t.Helper()
	if err := f.db.Join(f.t.Context(), m, lease); err != nil {
		f.t.Fatalf("Join(%v): %v", m.Stream, err)
	}
}

func (f *fixture) renew(s site.StreamID, r site.Renewal) {
	f.t.Helper()
	if err := f.db.Renew(f.t.Context(), s, r); err != nil {
		f.t.Fatalf("Renew(%v): %v", s, err)
	}
}

func (f *fixture) leave(s site.StreamID, final site.Mark) {
	f.t.Helper()
	if err := f.db.Leave(f.t.Context(), s, final); err != nil {
		f.t.Fatalf("Leave(%v): %v", s, err)
	}
}

func (f *fixture) reap(grace time.Duration) []site.StreamID {
	f.t.Helper()
	streams, err := f.db.Reap(f.t.Context(), grace)
	if err != nil {
		f.t.Fatalf("Reap(%v): %v", grace, err)
	}
	return sorted(streams)
}

func (f *fixture) changes(since site.Revision) site.Snapshot {
	f.t.Helper()
	snap, err := f.db.Changes(f.t.Context(), since)
	if err != nil {
		f.t.Fatalf("Changes(%d): %v", since, err)
	}
	return snap
}

func (f *fixture) snapshot(self site.StreamID, sites ...site.ID) site.Snapshot {
	f.t.Helper()
	snap, err := f.db.Snapshot(f.t.Context(), self, sites)
	if err != nil {
		f.t.Fatalf("Snapshot(%v): %v", self, err)
	}
	return snap
}

// row returns the row of s as a fresh read of everything sees it.
func (f *fixture) row(s site.StreamID) site.Member {
	f.t.Helper()
	m, ok := find(f.changes(0), s)
	if !ok {
		f.t.Fatalf("Changes(0) lacks the row of %v", s)
	}
	return m
}

func find(snap site.Snapshot, s site.StreamID) (site.Member, bool) {
	i := slices.IndexFunc(snap.Members, func(m site.Member) bool { return m.Stream == s })
	if i < 0 {
		return site.Member{}, false
	}
	return snap.Members[i], true
}

func streams(snap site.Snapshot) []site.StreamID {
	var s []site.StreamID
	for _, m := range snap.Members {
		s = append(s, m.Stream)
	}
	return sorted(s)
}

func sorted(s []site.StreamID) []site.StreamID {
	s = slices.Clone(s)
	slices.SortFunc(s, func(a, b site.StreamID) int { return bytes.Compare(a[:], b[:]) })
	return s
}

func sameSite(a, b site.Site) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Generation == b.Generation && a.Floors == b.Floors && a.Transports.Equal(b.Transports) && a.Transports.Changed == b.Transports.Changed &&
		slices.EqualFunc(a.Keys, b.Keys, sameKey)
}

func sameKey(a, b site.Key) bool {
	return a.ID == b.ID && a.State == b.State && a.Suite == b.Suite && a.Version == b.Version && a.Secret.Equal(b.Secret) && a.Until.Equal(b.Until) && a.Changed == b.Changed
}

func sameAddresses(a, b map[string][]string) bool {
	count := func(m map[string][]string) (n int) {
		for _, list := range m {
			n += len(list)
		}
		return n
	}
	for provider, list := range a {
		if !slices.Equal(list, b[provider]) {
			return false
		}
	}
	return count(a) == count(b)
}

// wantError fails unless err wraps want; a nil want stands for any error.
func (f *fixture) wantError(what string, err, want error) {
	f.t.Helper()
	switch {
	case err == nil:
		f.t.Errorf("%s: no error", what)
	case want != nil && !errors.Is(err, want):
		f.t.Errorf("%s: error %q, want one that wraps %q", what, err, want)
	case want == nil && errors.Is(err, site.ErrGone):
		f.t.Errorf("%s: error %q wraps ErrGone, which it must not", what, err)
	}
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
