package sim

import (
	"slices"
	"testing"
	"time"
)

func TestGrow_CountsWhatASiteDoes(t *testing.T) {
	const n = 6
	for _, network := range GrowthNetworks() {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			g := Grow(network, n, nil)
			if !g.Result.Holds() || g.Result.Verdict.Missed > 0 {
				t.Fatalf("%v, %v", g.Result.Err, &g.Result.Verdict)
			}
			hearers := uint64(n - 1)
			if network == "broker" {
				hearers = n // one's own frames come back
			}
			one, events := g.Phase("one"), uint64(10*growthRate)
			sent := events
			if network == "tcp" {
				sent *= n - 1
			}
			if got := one.SenderSent[KindData].Frames; got != sent {
				t.Errorf("who sends alone sends %d frames with events, want %d", got, sent)
			}
			if got := one.Received[KindData].Frames; got != events*hearers {
				t.Errorf("%d frames with events are heard, want %d", got, events*hearers)
			}
			if got, want := g.Phase("all").Received[KindData].Frames, n*2*hearers; got != want {
				t.Errorf("when all send, %d frames with events are heard, want %d", got, want)
			}
			if got := len(g.Phase("start").InStep); got != n {
				t.Errorf("%d came into step at the start, want %d", got, n)
			}
			if got := len(g.Phase("join").InStep); got != 1 {
				t.Errorf("%d joined, want one", got)
			}
			if g.Phase("leave").Received[KindOther].Frames == 0 || g.Phase("death").Received[KindDigest].Frames == 0 {
				t.Error("nobody heard a goodbye, or of a death")
			}
			lossy := g.Phase("loss=0.05")
			if (lossy != nil) != (network == "udp") {
				t.Fatalf("losses on %s: %v", network, lossy)
			}
			if lossy == nil {
				return
			}
			// Of 500 frames to five receivers each, 5 %.
			if got := len(lossy.Repaired); got < 75 || got > 175 || lossy.Sent[KindRepair].Frames == 0 || lossy.Open > 0 {
				t.Errorf("%d lost frames repaired, %d sent again, %d still missing", got, lossy.Sent[KindRepair].Frames, lossy.Open)
			}
			if !slices.IsSorted(lossy.Repaired) || lossy.Repaired[0] <= 0 {
				t.Errorf("repaired after %v", lossy.Repaired)
			}
		})
	}
}

func TestGrow_GivesTheSameEachTime(t *testing.T) {
	a, b := Grow("udp", 4, nil), Grow("udp", 4, nil)
	if a.Result.Hash != b.Result.Hash {
		t.Errorf("hashes %016x and %016x", a.Result.Hash, b.Result.Hash)
	}
	for i := range a.Phases {
		if a.Phases[i].Received != b.Phases[i].Received {
			t.Errorf("%s: %v and %v", a.Phases[i].Name, a.Phases[i].Received, b.Phases[i].Received)
		}
	}
}

// What one instance hears of all others together must not follow from their number alone. Each
// bound is somewhat above what is said by design; before large sites were looked at, all but the
// first were exceeded by far.
func TestGrow_NoInstanceIsToldMoreThanItNeeds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	const n = 48
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			g := Grow(network, n, nil)
			heard := func(phase string, k FrameKind) float64 { return float64(g.Phase(phase).Received[k].Frames) / n }
			seconds := func(phase string) float64 { return g.Phase(phase).Length.Seconds() }
			for _, bound := range []struct {
				what      string
				got, most float64
			}{
				{"heartbeats a second while idle", heard("idle", KindHeartbeat) / seconds("idle"), n},
				{"ACKs a second while one sends", heard("one", KindACK) / seconds("one"), 140},
				{"ACK frames a second while all send", heard("all", KindACK) / seconds("all"), 1000},
				{"HELLOs in all when all start", heard("start", KindHello), 4 * n},
				{"STATEs in all when one joins", heard("join", KindState), n + 1},
				{"DIGESTs in all when one dies", heard("death", KindDigest), 12},
			} {
				if bound.got > bound.most {
					t.Errorf("%s: %.1f for each instance, want %.1f at most", bound.what, bound.got, bound.most)
				}
			}
			if got := g.Phase("join").InStep[0]; got > 500*time.Millisecond {
				t.Errorf("a newcomer is in step after %v of simulated time", got)
			}
		})
	}
}
