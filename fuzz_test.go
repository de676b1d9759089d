package carillon_test

import (
	"context"
	"encoding/binary"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site/memsite"
)

// A door is a provider through which a test delivers what it likes.
type door struct {
	env  provider.Env
	sent atomic.Int64
}

func (d *door) Name() string                                  { return "door" }
func (d *door) Capabilities() provider.Capabilities           { return provider.Capabilities{IdleHeartbeat: -1} }
func (d *door) Start(_ context.Context, e provider.Env) error { d.env = e; return nil }
func (d *door) Close() error                                  { return nil }

func (d *door) Send(_ context.Context, frames [][]byte) error {
	d.sent.Add(int64(len(frames)))
	return nil
}

// FuzzDeliver gives a Broker batches of anything, with headers that name its site, its key and
// a stream. Nobody but a holder of the secret has anything told or answered, whatever it is, and
// every frame is counted.
func FuzzDeliver(f *testing.F) {
	f.Add([]byte("CRLN\x01\x01"), uint8(0))
	f.Add(make([]byte, 200), uint8(0xff))
	var b wire.Builder
	b.Reset(1200, 32)
	b.Append(&wire.Event{ID: wire.ID{1}, Payload: []byte("x")})
	f.Add(b.Finish(wire.Header{Key: 1, Number: 1}), uint8(3))
	f.Add(wire.ControlFrame(wire.Header{Key: 1, Number: 1}, wire.Hello{}, 32), uint8(3))

	db, in := memsite.New(nil), &door{}
	broker := mustOpen(f, config(db, in))
	var told atomic.Int64
	broker.OnReceived(func(carillon.Received) { told.Add(1) })
	broker.Enable()
	s, err := db.EnsureSite(context.Background(), "test")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, frame []byte, fix uint8) {
		before, sent := broker.Stats(), in.sent.Load()
		frame = slices.Clone(frame)
		if len(frame) >= wire.HeaderLen { // what chance would hardly ever get right
			if fix&1 != 0 {
				copy(frame, "CRLN\x01")
				binary.BigEndian.PutUint32(frame[8:], uint32(len(frame)))
			}
			if fix&2 != 0 {
				copy(frame[16:], s.ID[:])
				binary.BigEndian.PutUint32(frame[12:], uint32(s.Keys[0].ID))
			}
		}
		done := 0
		in.env.Deliver(provider.Batch{Frames: [][]byte{frame, frame}, From: "nowhere", Done: func() { done++ }})
		after := broker.Stats()
		dropped := uint64(0)
		for reason, n := range after.Drops {
			dropped += n - before.Drops[reason]
		}
		if dropped != 2 || after.FramesReceived-before.FramesReceived != 2 || done != 1 {
			t.Errorf("%d of 2 frames were dropped, %d counted, done %d times", dropped, after.FramesReceived-before.FramesReceived, done)
		}
		if n := told.Load(); n != 0 {
			t.Errorf("%d events were told", n)
		}
		if n := in.sent.Load(); n != sent {
			t.Errorf("%d frames answered", n-sent)
		}
	})
}
