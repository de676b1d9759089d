package janitor_test

import (
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/janitor"
	"github.com/carillon-go/carillon/site"
)

var (
	ours   = site.ID{15: 1}
	theirs = site.ID{15: 2}
	now    = time.Unix(1_800_000_000, 0)
)

const grace = 2 * time.Minute

// row is a member row that names subscriptions.
func row(state site.MemberState, names ...string) site.Member {
	return site.Member{Site: ours, Stream: site.NewStreamID(1, 1), Server: "here", State: state, Addresses: map[string][]string{"aws": names}}
}

func with(m site.Member, fn func(*site.Member)) site.Member { fn(&m); return m }

func TestJudge_LeasesDecide(t *testing.T) {
	for _, tt := range []struct {
		name    string // the rule that the case protects
		sub     provider.Subscription
		rows    []site.Member
		unnamed time.Duration // as earlier looks have seen
		want    janitor.Verdict
	}{
		{name: "what an open row names is in use", sub: sub("a", 0), rows: []site.Member{row(site.MemberOpen, "a")}, want: janitor.InUse},
		{name: "however old it is", sub: sub("a", 1000*time.Hour), rows: []site.Member{row(site.MemberOpen, "a")}, unnamed: time.Hour, want: janitor.InUse},
		{name: "also when the lease has lapsed", sub: sub("a", time.Hour), rows: []site.Member{with(row(site.MemberOpen, "a"), func(m *site.Member) { m.Lapsed = true })}, want: janitor.InUse},
		{name: "also as one of several addresses", sub: sub("a", time.Hour), rows: []site.Member{row(site.MemberOpen, "b", "a")}, want: janitor.InUse},
		{name: "also when its instance had another row before", sub: sub("a", time.Hour), rows: []site.Member{row(site.MemberReaped, "a"), row(site.MemberOpen, "a"), row(site.MemberClosed, "a")}, want: janitor.InUse},
		{name: "also when it is a row of another site", sub: sub("a", time.Hour), rows: []site.Member{with(row(site.MemberOpen, "a"), func(m *site.Member) { m.Site = theirs })}, want: janitor.InUse},
		{name: "what a closed row names goes", sub: sub("a", time.Second), rows: []site.Member{row(site.MemberClosed, "a")}, want: janitor.Ended},
		{name: "what a reaped row names goes", sub: sub("a", 0), rows: []site.Member{row(site.MemberReaped, "a")}, want: janitor.Ended},
		{name: "what several rows name that have ended goes", sub: sub("a", 0), rows: []site.Member{row(site.MemberReaped, "a"), row(site.MemberClosed, "a")}, want: janitor.Ended},
		{name: "what ended in another site says nothing", sub: sub("a", time.Second), rows: []site.Member{with(row(site.MemberClosed, "a"), func(m *site.Member) { m.Site = theirs })}, want: janitor.Unnamed},
		{name: "a row of another provider says nothing", sub: sub("a", time.Second), rows: []site.Member{{Site: ours, State: site.MemberOpen, Addresses: map[string][]string{"azure": {"a"}}}}, want: janitor.Unnamed},
		{name: "a row without addresses says nothing", sub: sub("a", time.Second), rows: []site.Member{{Site: ours, State: site.MemberClosed}}, want: janitor.Unnamed},
		{name: "a name that begins with it is another one", sub: sub("a", time.Second), rows: []site.Member{row(site.MemberClosed, "a1", "aa")}, want: janitor.Unnamed},
		{name: "a name that it begins with is another one", sub: sub("a1", time.Second), rows: []site.Member{row(site.MemberClosed, "a")}, want: janitor.Unnamed},
		{name: "a live one does not protect a name that begins with its own", sub: sub("a1", time.Hour), rows: []site.Member{row(site.MemberOpen, "a")}, want: janitor.Forgotten},
		{name: "a live one does not protect the beginning of its name", sub: sub("a", time.Hour), rows: []site.Member{row(site.MemberOpen, "a1")}, want: janitor.Forgotten},
		{name: "upper case is another name", sub: sub("A", time.Second), rows: []site.Member{row(site.MemberClosed, "a")}, want: janitor.Unnamed},
		{name: "what no row names stays before the grace", sub: sub("a", grace-1), want: janitor.Unnamed},
		{name: "what no row names goes after the grace", sub: sub("a", grace), want: janitor.Forgotten},
		{name: "of an unknown age it stays", sub: sub("a", 0), want: janitor.Unnamed},
		{name: "of an unknown age it stays until it was seen for the grace", sub: sub("a", 0), unnamed: grace - 1, want: janitor.Unnamed},
		{name: "of an unknown age it goes when it was seen for the grace", sub: sub("a", 0), unnamed: grace, want: janitor.Forgotten},
		{name: "created in the future, it stays", sub: sub("a", -time.Hour), want: janitor.Unnamed},
		{name: "created in the future, it goes when it was seen for the grace", sub: sub("a", -time.Hour), unnamed: grace, want: janitor.Forgotten},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := janitor.Look{
				Provider: "aws", Site: ours, Subscriptions: []provider.Subscription{tt.sub}, Grace: grace,
				Rows:    site.Snapshot{Members: tt.rows, Now: now},
				Unnamed: map[string]time.Duration{tt.sub.Name: tt.unnamed, tt.sub.Name + "1": time.Hour},
			}
			got := l.Judge()
			if len(got) != 1 || got[0].Verdict != tt.want || got[0].Subscription != tt.sub {
				t.Fatalf("Judge() = %+v, want one finding, %v", got, tt.want)
			}
			if goes := tt.want == janitor.Ended || tt.want == janitor.Forgotten; got[0].Verdict.Goes() != goes {
				t.Errorf("Goes() = %t", !goes)
			}
			if got[0].Why() == "" {
				t.Error("no reason is given")
			}
		})
	}
}

// sub is a subscription of this age; 0: the service does not tell.
func sub(name string, age time.Duration) provider.Subscription {
	s := provider.Subscription{Name: name}
	if age != 0 {
		s.Created = now.Add(-age)
	}
	return s
}
