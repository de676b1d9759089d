package sim

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// seedsOfTest is how many seeds a run of the tests has: as many as fit into it
// with the race detector. They are the same each time, so that a change that
// breaks something is the change that fails. CARILLON_SEEDS asks for more.
const seedsOfTest = 2000

func seeds(t *testing.T) uint64 {
	if text := os.Getenv("CARILLON_SEEDS"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("CARILLON_SEEDS=%q: %v", text, err)
		}
		return n
	}
	if testing.Short() {
		return seedsOfTest / 10
	}
	return seedsOfTest
}

func TestSeeds_KeepThePromise(t *testing.T) {
	const parts = 8
	n := seeds(t)
	for part := range uint64(parts) {
		t.Run(strconv.FormatUint(part, 10), func(t *testing.T) {
			t.Parallel()
			for seed := 1 + part; seed <= n; seed += parts {
				if r := Run(Generate(seed), nil); !r.Holds() {
					t.Errorf("seed %d: %v\n%v\nreplay: make sim SEED=%d", seed, r.Err, &r.Verdict, seed)
				}
			}
		})
	}
}

func TestRun_GivesTheSameHashForTheSameSeed(t *testing.T) {
	hashes := map[uint64]uint64{}
	for seed := uint64(1); seed <= 40; seed++ {
		a, b := Run(Generate(seed), nil), Run(Generate(seed), nil)
		if a.Hash != b.Hash {
			t.Errorf("seed %d: hashes %016x and %016x", seed, a.Hash, b.Hash)
		}
		if other, ok := hashes[a.Hash]; ok {
			t.Errorf("seeds %d and %d have the same hash", seed, other)
		}
		hashes[a.Hash] = seed
	}
}

// Watching must change nothing, or a replay would not show what failed.
func TestRun_GivesTheSameHashWhenTraced(t *testing.T) {
	for seed := uint64(1); seed <= 10; seed++ {
		p := Generate(seed)
		want := Run(p, nil).Hash
		q := Generate(seed)
		q.TraceFrames()
		if got := Run(q, new(bytes.Buffer)).Hash; got != want {
			t.Errorf("seed %d: hash %016x with a trace, %016x without", seed, got, want)
		}
	}
}

func TestGenerate_MakesSeedsOfTheSizePromised(t *testing.T) {
	verbsSeen := map[string]bool{}
	for seed := uint64(1); seed <= 300; seed++ {
		p := Generate(seed)
		if p.End < leastTime {
			t.Errorf("seed %d ends after %v", seed, p.End)
		}
		raises, faults := 0, 0
		for _, a := range p.Actions {
			verb := firstWord(a.Line)
			verbsSeen[verb] = true
			switch verb {
			case "raise":
				args := newArguments(newWorld(p, nil), a.Line)
				raises += args.number("n", 1)
			case "database", "site", "network", "process", "start", "calm":
				if strings.Contains(a.Line, "away") || len(strings.Fields(a.Line)) > 2 && verb == "database" && a.At > 0 {
					faults++
				}
			default:
				faults++
			}
		}
		if raises < leastRaises || faults == 0 {
			t.Errorf("seed %d plans %d raises and %d faults", seed, raises, faults)
		}
	}
	for _, verb := range []string{"weather", "cut", "heal", "break", "kill", "stop", "freeze", "slow", "database", "broker", "rotate", "revoke", "clone", "replay"} {
		if !verbsSeen[verb] {
			t.Errorf("no seed has the verb %q", verb)
		}
	}
}

func TestParsePlan_ReadsWhatStringWrites(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		p := Generate(seed)
		q, err := ParsePlan(p.String())
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if got, want := q.String(), p.String(); got != want {
			t.Fatalf("seed %d comes back as\n%s\nwant\n%s", seed, got, want)
		}
		if a, b := Run(p, nil), Run(q, nil); a.Hash != b.Hash {
			t.Errorf("seed %d: another hash after parsing", seed)
		}
	}
}

func TestParsePlan_RefusesNonsense(t *testing.T) {
	for _, line := range []string{"dance a", "at noon start a", "seed x", "set speed=9", "set lease=long"} {
		if _, err := ParsePlan("seed 1\n" + line + "\n"); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: error %v, want one that names line 2", line, err)
		}
	}
}

func TestRun_SaysWhichLineItCannotCarryOut(t *testing.T) {
	for _, line := range []string{"start nobody", "raise nobody", "database x away", "network n tin-can", "rotate nowhere", "cut a b on=moon"} {
		p, err := ParsePlan("database main\nsite shop\nnetwork n datagram\nprocess a\nprocess b\nat 1s " + line + "\nat 2s end\n")
		if err != nil {
			t.Fatal(err)
		}
		if r := Run(p, nil); r.Err == nil || !strings.Contains(r.Err.Error(), line) {
			t.Errorf("%q: error %v, want one that quotes it", line, r.Err)
		}
	}
}

// The plan claims that all is calm, and then cuts two instances apart for good, and from
// the database, whose rows would tell what was missed.
func TestShrink_KeepsOnlyWhatMakesThePlanFail(t *testing.T) {
	p := defaults(1)
	p.MissedAfter = 2 * time.Second
	for _, line := range []string{"database main", "site shop", "network n datagram", "process a", "process b", "process c", "start a", "start b", "start c"} {
		p.add(0, "%s", line)
	}
	for i := range 20 {
		p.add(time.Duration(i)*100*time.Millisecond, "raise %c n=3", "abc"[i%3])
	}
	p.add(2*time.Second, "kill c")
	p.add(3*time.Second, "calm")
	p.add(4*time.Second, "cut a b")
	p.add(4*time.Second, "database main refuses")
	p.add(5*time.Second, "raise a n=40")
	p.End = time.Minute
	if Run(p, nil).Holds() {
		t.Fatal("the plan that is to be made smaller does not fail")
	}
	small := Shrink(p, 2000)
	if r := Run(small, nil); r.Kind() != "silent" {
		t.Errorf("the smaller plan fails by %q, want silent", r.Kind())
	}
	want := []string{"database main", "site shop", "network n datagram", "process a", "process b", "start a", "start b", "calm", "cut a b", "database main refuses", "raise a n=1"}
	var got []string
	for _, a := range small.Actions {
		got = append(got, a.Line)
	}
	if !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
	if small.End >= p.End/2 {
		t.Errorf("it lasts until %v still", small.End)
	}
}
