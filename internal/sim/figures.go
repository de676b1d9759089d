package sim

import (
	"fmt"
	"io"
	"time"
)

// Figures prints what is missed at which loss, and reports whether all of it is as
// it should be: nothing at 20 % and below, at most 1 of 10,000 at 50 %, every last
// message accounted for, and nothing lost or refused while keys rotate.
func Figures(out io.Writer, events int) bool {
	good := true
	fmt.Fprintf(out, "5 instances, 500 events/s of 200 bytes, %d events at each loss\n", events)
	for _, loss := range []float64{0.01, 0.05, 0.2, 0.5} {
		r := load(loss, 500, events, "")
		ratio := float64(r.Verdict.Missed) / float64(r.Verdict.Raised+r.Verdict.Missed)
		fmt.Fprintf(out, "  loss %2.0f %%: %d Raised, %d Missed (%.1e), %d frames sent again for %d sent\n",
			loss*100, r.Verdict.Raised, r.Verdict.Missed, ratio, r.Stats.Resent, r.Stats.Frames)
		good = good && r.report(out) && (loss > 0.2 || r.Verdict.Missed == 0) && ratio <= 1e-4
	}

	highest := 0
	for rate := 1000; rate <= 64000; rate *= 2 {
		r := load(0.2, rate, 5*rate, "")
		if !r.Holds() || r.Verdict.Missed > 0 || r.Stats.Blocked > 0 {
			break
		}
		highest = rate
	}
	fmt.Fprintf(out, "highest rate at which 20 %% loss misses nothing and holds up no Raise: %d events/s\n", highest)

	accounted := 0
	for seed := range uint64(1000) {
		if r := lastMessage(seed + 1); r.Holds() && r.Verdict.Pending == 0 {
			accounted++
		}
	}
	fmt.Fprintf(out, "last message before silence, with 20 %% loss: accounted for %d of 1000 times within 1.5 s + the repair window\n", accounted)

	r := load(0.2, 5000, 100_000, "rotate shop every=2s overlap=12s")
	refused := r.Stats.Dropped["unknown-key"] + r.Stats.Dropped["retired-key"]
	fmt.Fprintf(out, "a rotation every 2 s at 5000 events/s and 20 %% loss: %d Missed, %d frames refused for their key\n", r.Verdict.Missed, refused)
	return good && accounted == 1000 && r.report(out) && r.Verdict.Missed == 0 && refused == 0
}

// report prints what is wrong with a result.
func (r *Result) report(out io.Writer) bool {
	if !r.Holds() {
		fmt.Fprintln(out, r.Err, &r.Verdict)
	}
	return r.Holds()
}

// load has 5 instances raise that many events of 200 bytes at that rate together,
// and wait until all is settled.
func load(loss float64, rate, events int, also string) Result {
	p := defaults(1)
	p.Poll = 200 * time.Millisecond
	p.add(0, "database main")
	p.add(0, "site shop")
	p.add(0, "network udp datagram frame-bytes=1200 window=4194304 delay=200us jitter=300us shared-loss")
	for i := range 5 {
		p.add(0, "process p%d", i)
		p.add(0, "start p%d", i)
	}
	p.add(time.Second, "weather udp loss=%v", loss)
	if also != "" {
		p.add(time.Second, "%s", also)
	}
	// In slices, or the agenda would hold every raise from the beginning.
	const slice = time.Second
	at, each := 2*time.Second, max(1, rate/5)
	for left := events; left > 0; left -= 5 * each {
		for i := range 5 {
			p.add(at+time.Duration(i)*time.Microsecond, "raise p%d n=%d every=%v size=200", i, each, slice/time.Duration(each))
		}
		at += slice
	}
	p.add(at+slice, "calm")
	p.End = at + slice + p.settle() + time.Second
	p.sort()
	return Run(p, nil)
}

// lastMessage loses the last of five events and everything else for 10 ms, on a
// network that goes on losing. It must be settled within 1.5 s and the window.
func lastMessage(seed uint64) Result {
	p := defaults(seed)
	p.within = 1500*time.Millisecond + p.MissedAfter
	p.add(0, "database main")
	p.add(0, "site shop")
	p.add(0, "network udp datagram frame-bytes=1200")
	for _, name := range []string{"a", "b", "c"} {
		p.add(0, "process %s", name)
		p.add(0, "start %s", name)
	}
	p.add(2*time.Second, "calm") // from here on the promise is held against what happens
	p.add(2*time.Second, "weather udp loss=0.2")
	p.add(3*time.Second, "raise a n=4 every=1ms")
	p.add(3010*time.Millisecond, "weather udp loss=1")
	p.add(3010*time.Millisecond, "raise a")
	p.add(3020*time.Millisecond, "weather udp loss=0.2")
	p.End = 3011*time.Millisecond + p.within + time.Second
	return Run(p, nil)
}
