package carillontest

import (
	"testing"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/membus"
)

func TestOutages_CountWhatBecameOfEveryEvent(t *testing.T) {
	bus := membus.New()
	var all []*membus.Provider
	each := func(fn func(*membus.Provider)) func() {
		return func() {
			for _, p := range all {
				fn(p)
			}
		}
	}
	outcomes := Outages{
		Events: 900, Kills: 2, Away: 50,
		Provider: func(int) provider.Provider {
			p := bus.Provider()
			all = append(all, p)
			return p
		},
		Kill:  each((*membus.Provider).Cut),
		Start: each((*membus.Provider).Heal),
	}.Run(t)
	for i, o := range outcomes {
		if o.Expected != 600 || o.Raised != 600 || o.Stats.Providers[0].Failures == 0 {
			t.Errorf("instance %d: %d raised of %d, %d failed calls of Send; want all 600, and some failed calls", i, o.Raised, o.Expected, o.Stats.Providers[0].Failures)
		}
	}
}

func TestOutcome_SaysHowThePromiseIsBroken(t *testing.T) {
	for _, tt := range []struct {
		name   string
		o      Outcome
		broken bool
	}{
		{"all raised", Outcome{Expected: 1000, Raised: 1000}, false},
		{"a few missed", Outcome{Expected: 1000, Raised: 990, Missed: 10}, false},
		{"more than a few", Outcome{Expected: 1000, Raised: 989, Missed: 11}, true},
		{"one in silence", Outcome{Expected: 1000, Raised: 999}, true},
		{"one raised and missed", Outcome{Expected: 1000, Raised: 1000, Missed: 1}, true},
		{"one twice", Outcome{Expected: 1000, Raised: 1000, Twice: 1}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if problem := tt.o.problem(); (problem != "") != tt.broken {
				t.Errorf("problem %q", problem)
			}
		})
	}
}
