package mqttbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site/memsite"
)

// A right that is taken away while the instance runs shows in Send, if it is that to publish, and is enough again when it is given back.
func TestSend_RightsRevokedAndGranted(t *testing.T) {
	s := startServer(t)
	s.setUsers(secret, map[string][]string{"app": {may}})
	s.configure("password_file "+s.folder+"/passwords", "acl_file "+s.folder+"/acl")
	s.restart()
	cfg := Config{URLs: []string{"mqtt://app:" + secret + "@" + s.address}}
	a, b := started(t, cfg), started(t, cfg)
	hears(t, a, b, "at first")

	s.setUsers(secret, map[string][]string{"app": {mayRead}})
	s.reload()
	var err error
	if !eventually(func() bool {
		err = a.Provider.Send(t.Context(), [][]byte{[]byte("without the right")})
		return err != nil && strings.Contains(err.Error(), "grant it: readwrite carillon/#")
	}) {
		t.Errorf("Send without the right to publish: %v", err)
	}
	if errors.Is(err, provider.ErrClosed) || errors.Is(err, provider.ErrFrameTooLarge) {
		t.Errorf("Send without the right to publish: %v, which is final", err)
	}
	providertest.CheckNoSecret(t, secret, err)

	// Without the right to read, mosquitto carries nothing and says nothing.
	s.setUsers(secret, map[string][]string{"app": {mayWrite}})
	s.reload()
	n := 0
	if !eventually(func() bool {
		n++
		f := fmt.Appendf(nil, "without the right to read, %d", n)
		return a.Provider.Send(t.Context(), [][]byte{f}) == nil && !b.Heard(f, 50*1e6)
	}) {
		t.Error("without the right to read everything is heard")
	}

	s.setUsers(secret, map[string][]string{"app": {may}})
	s.reload()
	hears(t, a, b, "with all rights again")
}

// A limit of mosquitto's that it does not tell before.
func TestSend_FrameThatTheServerDoesNotTake(t *testing.T) {
	s := startServer(t, "message_size_limit 5000")
	e := started(t, Config{URLs: []string{s.url()}})
	send(t, e, strings.Repeat("f", 5000))
	err := e.Provider.Send(t.Context(), [][]byte{make([]byte, 5001)})
	if !errors.Is(err, provider.ErrFrameTooLarge) || !strings.Contains(err.Error(), "message_size_limit") {
		t.Errorf("Send of a frame above message_size_limit: %v, want ErrFrameTooLarge and the remedy", err)
	}
	providertest.CheckNoSecret(t, secret, err)
	send(t, e, "afterwards")
}

// Senders are paced by what is told here. By default it is less than what mosquitto keeps for each client, whatever the size of the frames.
func TestStart_TellsHowMuchIsKept(t *testing.T) {
	s := startServer(t)
	for _, tt := range []struct{ set, want int }{{0, 1 << 20}, {100_000, 100_000}} {
		p := newTest(t, Config{URLs: []string{s.url()}, ReceiveBytes: tt.set})
		env := providertest.NewEndpoint(t, p, provider.Env{}).Env()
		told := 0
		env.ReceiveBuffer = func(bytes int) { told = bytes }
		if err := p.Start(t.Context(), env); err != nil {
			t.Fatal(err)
		}
		if told != tt.want {
			t.Errorf("ReceiveBytes %d: %d bytes were told, want %d", tt.set, told, tt.want)
		}
		if messages := told / provider.FrameCharge; messages > 900 {
			t.Errorf("%d messages may be under way, of 1,000 that mosquitto keeps", messages)
		}
	}
}

// Instances that raise as fast as they can miss nothing at a mosquitto with its default limits, since receivers pace the senders: it keeps 1,000
// messages for each client, and drops what comes then.
func TestBrokers_AtFullSpeedNothingIsMissed(t *testing.T) {
	const (
		instances = 3
		each      = 4_000
		size      = 300 // one in a frame, so that it is the number of messages that counts
	)
	s := startServer(t)
	db := memsite.New(nil)
	event := carillon.Define[[]byte](carillon.NewID(), "measured", carillon.WithCodec(carillon.Bytes()))
	var brokers []*carillon.Broker
	var raised [instances]atomic.Int64
	var missed atomic.Int64
	for i := range instances {
		b, err := carillon.Open(t.Context(), carillon.Config{
			Application: "test", Server: fmt.Sprint("instance ", i), Database: db, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
			Providers: []provider.Provider{newTest(t, Config{URLs: []string{s.url()}, MaxFrameBytes: minFrameBytes})},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		event.OnRaised(b, func(_ context.Context, r carillon.Raised[[]byte]) {
			if !r.Local {
				raised[i].Add(1)
			}
		})
		event.OnMissed(b, func(_ context.Context, m carillon.Missed) {
			t.Logf("instance %d missed %+v", i, m)
			missed.Add(int64(m.Count))
		})
		b.Enable()
		brokers = append(brokers, b)
	}
	var running sync.WaitGroup
	for _, b := range brokers {
		running.Go(func() {
			data := make([]byte, size)
			for range each {
				if err := event.Raise(t.Context(), b, carillon.ID{}, data); err != nil {
					t.Errorf("raise: %v", err)
					return
				}
			}
		})
	}
	running.Wait()
	for i := range instances {
		if !eventually(func() bool { return raised[i].Load() >= (instances-1)*each }) {
			t.Errorf("instance %d: %d of %d events were raised", i, raised[i].Load(), (instances-1)*each)
		}
	}
	if n := missed.Load(); n > 0 {
		t.Errorf("%d events were missed", n)
	}
	for i, b := range brokers {
		st := b.Stats()
		t.Logf("instance %d: %d failed calls of Send, %d frames repaired", i, st.Providers[0].Failures, st.Repair.Repaired)
	}
	if said := s.said(); strings.Contains(said, "dropped") {
		t.Errorf("the server dropped messages: %s", said)
	}
}
