package engine

import (
	"errors"
	"testing"
	"time"

	"github.com/carillon-go/carillon/internal/wire"
)

// A process that stood still hears first what came meanwhile, whatever happens first when it goes on. Who makes no progress
// after that stops counting as ever.
func TestPause_OwnStandstillIsNotHeldAgainstReceivers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		window int // of the receivers; 0: the ring paces
		first  func(m *Machine, now time.Time, fx *Effects)
	}{
		{"their credit paces, Tick comes first", 1 << 20, func(m *Machine, now time.Time, fx *Effects) { m.Tick(now, fx) }},
		{"their credit paces, Take comes first", 1 << 20, func(m *Machine, now time.Time, fx *Effects) { m.Take(now, nil) }},
		{"the ring paces, Tick comes first", 0, func(m *Machine, now time.Time, fx *Effects) { m.Tick(now, fx) }},
		{"the ring paces, Raise comes first", 0, func(m *Machine, now time.Time, fx *Effects) { m.Raise(now, eventOf(1000), false) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, others, now, fx := pacedBy(t, 2, func(cfg *Config) { cfg.Window, cfg.RingBytes, cfg.UnsentBytes = tt.window, 64<<10, 64<<10 })
			var err error
			for range 200 { // until what is kept back is too much
				if _, err = m.Raise(now, eventOf(1000), false); err != nil {
					break
				}
				if frames := m.Take(now, nil); len(frames) > 0 {
					m.Handed(now, frames[len(frames)-1].Number, fx)
				}
			}
			if !errors.Is(err, ErrFull) {
				t.Fatalf("nothing paces: %v", err)
			}
			fx.Reset()
			evicted := func() (n uint64) {
				for _, s := range others {
					n += uint64(m.byStream[s].evicted)
				}
				return n
			}

			const away = 3 * time.Second
			passes(m, now.Add(50*time.Millisecond), fx, func(time.Time) {})
			now = now.Add(50*time.Millisecond + away)
			tt.first(m, now, fx)
			fx.Reset()
			if evicted() > 0 {
				t.Fatal("receivers are given up because this process stood still")
			}
			// They were well all the time.
			tell(m, others[0], now, wire.ACK{Entries: []wire.ACKEntry{{Stream: m.cfg.Stream, Mark: m.Mark(), Credit: 1 << 20}}}, fx)
			// But for one.
			passes(m, now.Add(stallProgress/2), fx, func(time.Time) {})
			if evicted() > 0 {
				t.Error("a receiver is given up before it had its time")
			}
			passes(m, now.Add(stallProgress+pauseGrace), fx, func(time.Time) {})
			if !m.byStream[others[0]].counts || m.byStream[others[1]].counts || evicted() != 1 {
				t.Errorf("%d given up, the one that goes on counts %v, the other %v", evicted(), m.byStream[others[0]].counts, m.byStream[others[1]].counts)
			}
		})
	}
}

// A receiver that moves along, though for so long that only its last step counts, is given that step's time again too.
func TestPause_ProgressBeforeItCounts(t *testing.T) {
	m, others, now, fx := pacedBy(t, 1, func(cfg *Config) { cfg.MaxStall = time.Second })
	grants(m, others[0], now, 0, 200_000, fx)
	raiseAndTake(t, m, now, 400)
	began := now
	for i, at := range []time.Duration{400 * time.Millisecond, 880 * time.Millisecond} {
		passes(m, began.Add(at), fx, func(time.Time) {})
		grants(m, others[0], began.Add(at), uint64(i+1), 1000, fx) // too little for another frame
	}
	now = began.Add(900 * time.Millisecond)
	passes(m, now, fx, func(time.Time) {})
	now = now.Add(560 * time.Millisecond)
	m.Tick(now, fx)
	if p := m.byStream[others[0]]; !p.counts || p.evicted > 0 {
		t.Errorf("given up %v after its last progress, most of which this process stood still", now.Sub(began.Add(880*time.Millisecond)))
	}
}

// To stand still again and again is no way to wait for a receiver for ever.
func TestPause_ReceiversAreGivenUpThoughItComesAgain(t *testing.T) {
	m, others, now, fx := pacedBy(t, 1, func(*Config) {})
	grants(m, others[0], now, 0, 200_000, fx)
	raiseAndTake(t, m, now, 400)
	p := m.byStream[others[0]]
	for range 5 { // 450 ms of every second
		passes(m, now.Add(450*time.Millisecond), fx, func(time.Time) {})
		now = now.Add(time.Second)
		m.Tick(now, fx)
		fx.Reset()
	}
	if p.counts {
		t.Error("a receiver that made no progress in two seconds of this process's time still counts")
	}
}
