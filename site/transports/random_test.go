package transports_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/transports"
)

// Operators begin, stop, carry on and give up at random, several at once, while instances come and
// go: no instance ever sends on what another does not receive (see world.read), and in the end somebody finishes.
func TestMove_AtRandom(t *testing.T) {
	for seed := range uint64(40) {
		bubble(t, func(t *testing.T, w *world) {
			random := rand.New(rand.NewPCG(seed, 5))
			names := []string{"udp", "nats", "redis"}
			var running []*instance
			for range 2 + random.IntN(3) {
				running = append(running, w.instance(w.site, names...))
			}
			done := make(chan struct{})
			const operators = 3
			for n := range uint64(operators) {
				go func() {
					defer func() { done <- struct{}{} }()
					random := rand.New(rand.NewPCG(seed, 100+n))
					for range 12 {
						ctx, cancel := context.WithTimeout(context.Background(), time.Duration(random.IntN(60000))*time.Millisecond)
						o := transports.Options{Overlap: time.Duration(1+random.IntN(20)) * time.Second}
						var err error
						switch random.IntN(4) {
						case 0:
							_, err = transports.Abort(ctx, w.db, "app", o)
						case 1:
							_, err = transports.Move(ctx, w.db, "app", nil, o)
						default:
							_, err = transports.Move(ctx, w.db, "app", []string{names[random.IntN(3)]}, o)
						}
						cancel()
						for _, expected := range []error{nil, transports.ErrUnderWay, transports.ErrNothing, context.DeadlineExceeded} {
							if errors.Is(err, expected) {
								err = nil
							}
						}
						if err != nil {
							t.Errorf("seed %d: %v", seed, err)
						}
						time.Sleep(time.Duration(random.IntN(5000)) * time.Millisecond)
					}
				}()
			}
			for left := operators; left > 0; {
				select {
				case <-done:
					left--
				case <-time.After(time.Duration(1+random.IntN(20)) * time.Second):
					if random.IntN(2) == 0 && len(running) > 1 {
						i := running[0]
						running = running[1:]
						i.cancel()
						synctest.Wait()
						if err := w.db.Leave(context.Background(), i.stream, site.Mark{}); err != nil {
							t.Error(err)
						}
					} else {
						running = append(running, w.instance(w.site, names...))
					}
				}
			}
			if w.transports().Moving() {
				if _, err := w.move(transports.Options{}); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
			}
			if tr := w.transports(); !tr.IsZero() && tr.Moving() {
				t.Errorf("seed %d: %+v is under way still", seed, tr)
			}
		})
	}
}
