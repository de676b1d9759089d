package carillon

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestPace_TrustIsEarnedSlowlyAndLostAtOnce(t *testing.T) {
	type runs struct {
		n    int
		took time.Duration
	}
	const quick, middling = quickRun - 1, quickRun
	for _, tt := range []struct {
		name string
		runs []runs
		want bool
	}{
		{"unknown", nil, false},
		{"quick, but not often enough", []runs{{lendFirst - 1, quick}}, false},
		{"quick often enough", []runs{{lendFirst, quick}}, true},
		{"never quick", []runs{{1000, middling}}, false},
		{"quick now and then", []runs{{lendFirst - 1, quick}, {1, middling}, {lendFirst/2 - 1, quick}, {1, middling}}, false},
		{"once not quick, after long", []runs{{1000, quick}, {1, middling}}, true},
		{"no longer quick", []runs{{1000, quick}, {3, middling}}, false},
		{"slow once", []runs{{1000, quick}, {1, slowRun}}, false},
		{"not slow by a hair", []runs{{1000, quick}, {1, slowRun - 1}}, true},
		{"slow once, quick as often as at first", []runs{{1000, quick}, {1, slowRun}, {lendFirst, quick}}, false},
		{"slow once, quick four times as often", []runs{{1000, quick}, {1, slowRun}, {4 * lendFirst, quick}}, true},
		{"slow again and again", []runs{{1000, slowRun}, {lendLast - 1, quick}}, false},
		{"but not for ever", []runs{{1000, slowRun}, {lendLast, quick}}, true},
		{"what is long past is forgotten", []runs{{1000, slowRun}, {3 * lendLast, quick}, {1, slowRun}, {4 * lendFirst, quick}}, true},
		{"and gives no credit", []runs{{1000, slowRun}, {3 * lendLast, quick}, {3, middling}}, false},
	} {
		var p pace
		for _, r := range tt.runs {
			for range r.n {
				p.ran(r.took)
			}
		}
		if got := p.quick(); got != tt.want {
			t.Errorf("%s: quick is %v, want %v (%+v)", tt.name, got, tt.want, p)
		}
	}
}

// A run that ends in the very moment in which it has lasted too long: resume is called before end returns, or never.
func TestLoans_ResumeIsNeverLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l loans
		var short loan
		l.begin(&short, time.Now(), func() { t.Error("resume was called at once") })
		l.end(&short, true)
		noneLeft(t, &l)
		var resumed atomic.Int32
		for range 500 {
			var n loan
			var over atomic.Bool
			l.begin(&n, time.Now(), func() {
				resumed.Add(1)
				if over.Load() {
					t.Error("resume was called after the end")
				}
			})
			time.Sleep(lendTime)
			l.end(&n, true)
			over.Store(true)
		}
		noneLeft(t, &l)
		t.Logf("%d of 500 were resumed", resumed.Load())
	})
}

// Each is resumed when its own time is up, whenever the others began, and once.
func TestLoans_EachHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l loans
		var took [10]atomic.Int64 // a time.Duration
		var all [10]loan
		for i := range all {
			since := time.Now()
			l.begin(&all[i], since, func() {
				if took[i].Swap(int64(time.Since(since))) != 0 {
					t.Errorf("loan %d is resumed twice", i)
				}
			})
			time.Sleep(time.Millisecond)
		}
		l.end(&all[7], true)
		time.Sleep(time.Second)
		for i := range took {
			d := time.Duration(took[i].Load())
			if want := lendTime; i == 7 && d != 0 || i != 7 && d != want {
				t.Errorf("loan %d, begun at %v, is resumed after %v, want %v", i, time.Duration(i)*time.Millisecond, d, want)
			}
			l.end(&all[i], false)
		}
		noneLeft(t, &l)
	})
}

// noneLeft fails the test if l does anything though all its loans have ended.
func noneLeft(t *testing.T, l *loans) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.out) > 0 || l.ticking || l.timer.Stop() {
		t.Errorf("after all have ended, %d are looked after", len(l.out))
	}
}

// What is pushed while a queue runs on a goroutine that it was lent does not keep that goroutine.
func TestQueue_WhatComesMeanwhileHasAGoroutineOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var group running
		var lent loans
		var o offer
		told, back := make(chan int, 2), make(chan struct{})
		var q queue[int]
		q = queue[int]{limit: 1 << 30, group: &group, offer: &o, pace: pace{score: lendFirst}, handle: func(n *int) {
			q.load.take(1, 1)
			if *n == 1 {
				q.push(2, 1, 1)
			} else {
				<-back
			}
			told <- *n
		}}
		o.open = true
		q.push(1, 1, 1)
		if o.end() != borrower(&q) {
			t.Fatal("the offer is not taken")
		}
		q.runLent(&lent, func() { t.Error("the goroutine is not given back in time") })
		close(back)
		if idle := group.idle(); idle != nil {
			<-idle
		}
		if a, b := <-told, <-told; a != 1 || b != 2 {
			t.Errorf("handed over %d and then %d", a, b)
		}
	})
}
