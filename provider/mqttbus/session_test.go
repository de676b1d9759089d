package mqttbus

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho/session"
)

// connected returns an inFlight whose server takes so many messages at once, and what was written to it.
func connected(tb testing.TB, receiveMaximum uint16) (*inFlight, *bytes.Buffer) {
	tb.Helper()
	s, out := newInFlight(func(error) {}), new(bytes.Buffer)
	if err := s.ConAckReceived(out, nil, &packets.Connack{Properties: &packets.Properties{ReceiveMaximum: &receiveMaximum}}); err != nil {
		tb.Fatal(err)
	}
	return s, out
}

// written returns the identifiers of the packets that were written since it was called last, and their type.
func written(tb testing.TB, out *bytes.Buffer) (kinds []byte, ids []uint16) {
	tb.Helper()
	for out.Len() > 0 {
		p, err := packets.ReadPacket(out)
		if err != nil {
			tb.Fatal(err)
		}
		kinds, ids = append(kinds, p.Type), append(ids, p.PacketID())
	}
	return kinds, ids
}

// acknowledged has s receive the server's answer to a message.
func acknowledged(s *inFlight, id uint16, code byte) {
	p := packets.NewControlPacket(packets.PUBACK)
	p.Content.(*packets.Puback).PacketID, p.Content.(*packets.Puback).ReasonCode = id, code
	s.PacketReceived(p, nil)
}

func TestInFlight_AcknowledgesInTheOrderOfArrival(t *testing.T) {
	s, out := connected(t, 10)
	var taken []func()
	for id := range uint16(5) {
		taken = append(taken, s.receive(10*(id+1)))
	}
	for _, step := range []struct {
		taken int
		want  []uint16 // acknowledged then
	}{{1, nil}, {3, nil}, {0, []uint16{10, 20}}, {2, []uint16{30, 40}}, {4, []uint16{50}}} {
		taken[step.taken]()
		kinds, ids := written(t, out)
		if !slices.Equal(ids, step.want) || slices.ContainsFunc(kinds, func(k byte) bool { return k != packets.PUBACK }) {
			t.Errorf("when message %d is taken, %v of types %v are acknowledged, want %v", step.taken, ids, kinds, step.want)
		}
	}
	late := s.receive(60)
	s.ConnectionLost(nil)
	late()
	if out.Len() > 0 {
		t.Error("something was written when the connection was lost")
	}
}

func TestInFlight_SendsNoMoreThanTheServerTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, out := connected(t, 2)
		ended := make(chan error, 1)
		var unheard int
		go func() {
			var err error
			unheard, err = s.publish(t.Context(), "t", [][]byte{{1}, {2}, {3}, {4}}, nil)
			ended <- err
		}()
		synctest.Wait()
		if _, ids := written(t, out); !slices.Equal(ids, []uint16{1, 2}) {
			t.Fatalf("%v were sent of a quota of 2", ids)
		}
		acknowledged(s, 2, packets.PubackNoMatchingSubscribers)
		acknowledged(s, 2, 0)  // again: nobody waits for it
		acknowledged(s, 77, 0) // nobody has ever
		synctest.Wait()
		if _, ids := written(t, out); !slices.Equal(ids, []uint16{3}) {
			t.Fatalf("%v were sent after one answer, want one", ids)
		}
		acknowledged(s, 1, 0)
		acknowledged(s, 3, 0)
		synctest.Wait()
		if len(ended) > 0 {
			t.Fatal("publish returned before all was answered")
		}
		acknowledged(s, 4, packets.PubackNoMatchingSubscribers)
		if err := <-ended; err != nil || unheard != 2 {
			t.Errorf("publish: %d unheard, %v; want 2", unheard, err)
		}
	})
}

func TestInFlight_TellsWhyTheServerRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := connected(t, 10)
		ended := make(chan error, 1)
		go func() {
			_, err := s.publish(t.Context(), "t", [][]byte{{1}, {2}}, nil)
			ended <- err
		}()
		synctest.Wait()
		acknowledged(s, 1, packets.PubackQuotaExceeded)
		acknowledged(s, 2, 0)
		var r *refusal
		if err := <-ended; !errors.As(err, &r) || r.code != packets.PubackQuotaExceeded {
			t.Errorf("publish: %v, want the refusal", err)
		}
	})
}

func TestInFlight_NobodyWaitsForALostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, out := connected(t, 2)
		errs := make(chan error, 4)
		for _, frames := range [][][]byte{{{1}}, {{2}, {3}}} { // the second waits for the quota
			go func() {
				_, err := s.publish(t.Context(), "t", frames, nil)
				errs <- err
			}()
		}
		answer := make(chan packets.ControlPacket, 1)
		if err := s.AddToSession(t.Context(), new(packets.Subscribe), answer); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.ConnectionLost(nil)
		s.ConnectionLost(nil) // paho may say it again
		for range 2 {
			if err := <-errs; !errors.Is(err, errLost) {
				t.Errorf("publish: %v, want errLost", err)
			}
		}
		if p := <-answer; p.Type != 0 {
			t.Errorf("who subscribes was answered %v", p)
		}
		out.Reset()
		if _, err := s.publish(t.Context(), "t", [][]byte{{4}}, nil); !errors.Is(err, errLost) || out.Len() > 0 {
			t.Errorf("publish afterwards: %v, and %d bytes were written", err, out.Len())
		}
		if err := s.AddToSession(t.Context(), new(packets.Subscribe), answer); !errors.Is(err, session.ErrNoConnection) {
			t.Errorf("AddToSession afterwards: %v", err)
		}
	})
}

func TestInFlight_WaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := connected(t, 1)
		for _, frames := range [][][]byte{{{1}}, {{2}, {3}}} { // for the answer, and for the quota
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				_, err := s.publish(ctx, "t", frames, nil)
				ended <- err
			}()
			synctest.Wait()
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("publish of %d frames: %v", len(frames), err)
			}
		}
	})
}

// Identifiers come round again, past those that still wait, and never as 0.
func TestInFlight_IdentifiersAreUnique(t *testing.T) {
	s, _ := connected(t, 10)
	answer := make(chan packets.ControlPacket, 1)
	kept := new(packets.Subscribe)
	if err := s.AddToSession(t.Context(), kept, answer); err != nil {
		t.Fatal(err)
	}
	for n := range 1<<16 + 10 {
		p := new(packets.Subscribe)
		if err := s.AddToSession(t.Context(), p, answer); err != nil {
			t.Fatal(err)
		}
		if p.PacketID == 0 || p.PacketID == kept.PacketID {
			t.Fatalf("the %d-th identifier is %d, and %d is in use", n, p.PacketID, kept.PacketID)
		}
		suback := packets.NewControlPacket(packets.SUBACK)
		suback.Content.(*packets.Suback).PacketID = p.PacketID
		s.PacketReceived(suback, nil)
		<-answer
	}
}

// An answer of the wrong kind is not taken for the right one.
func TestInFlight_IgnoresAnswersOfAnotherKind(t *testing.T) {
	s, _ := connected(t, 10)
	answer := make(chan packets.ControlPacket, 1)
	p := new(packets.Subscribe)
	if err := s.AddToSession(t.Context(), p, answer); err != nil {
		t.Fatal(err)
	}
	acknowledged(s, p.PacketID, 0)
	if len(answer) > 0 {
		t.Error("who subscribes takes the answer to a message")
	}
	s.PacketReceived(packets.NewControlPacket(packets.PINGRESP), nil)
}

func TestInFlight_RefusesAServerThatTakesNothing(t *testing.T) {
	if err := newInFlight(func(error) {}).ConAckReceived(new(bytes.Buffer), nil, &packets.Connack{Properties: &packets.Properties{ReceiveMaximum: new(uint16(0))}}); err == nil {
		t.Error("no error for a Receive Maximum of 0")
	}
	for _, none := range []*packets.Properties{nil, {}} {
		s := newInFlight(func(error) {})
		if err := s.ConAckReceived(new(bytes.Buffer), nil, &packets.Connack{Properties: none}); err != nil || len(s.quota) != maxInFlight {
			t.Errorf("without a Receive Maximum: %v, quota %d", err, len(s.quota))
		}
	}
}

// A server that is slow is waited for, one that does not answer is not.
func TestInFlight_WaitsAsLongAsThereAreAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, receiveMaximum := range []uint16{1, 5} { // with the quota, and without
			s, _ := connected(t, receiveMaximum)
			ended := make(chan error, 1)
			go func() {
				_, err := s.publish(t.Context(), "t", [][]byte{{1}, {2}, {3}, {4}, {5}}, nil)
				ended <- err
			}()
			for id := range uint16(4) {
				time.Sleep(answerWithin - 1)
				acknowledged(s, id+1, 0)
				synctest.Wait()
			}
			if len(ended) > 0 {
				t.Fatalf("publish ended though there were answers: %v", <-ended)
			}
			time.Sleep(2 * answerWithin)
			if err := <-ended; !errors.Is(err, errUnanswered) {
				t.Errorf("publish without an answer: %v", err)
			}
		}
	})
}
