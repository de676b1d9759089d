package mqttbus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// The server forgets all sessions each time.
func TestBrokers_LoseNothingInSilenceWhenTheServerIsKilled(t *testing.T) {
	s := startServer(t)
	carillontest.Outages{
		Provider: func(int) provider.Provider { return newTest(t, Config{URLs: []string{s.url()}}) },
		Kill:     s.kill,
		Start:    s.start,
	}.Run(t)
}

// behind starts an instance whose network can be broken.
func behind(t *testing.T, s *server, cfg Config) (*providertest.Endpoint, *providertest.Relay) {
	t.Helper()
	way := providertest.NewRelay(t, s.address)
	cfg.URLs = []string{"mqtt://" + way.Addr()}
	return started(t, cfg), way
}

// hears sends frames until one of them is heard.
func hears(t *testing.T, from, to *providertest.Endpoint, when string) {
	t.Helper()
	n := 0
	if !eventually(func() bool {
		n++
		f := fmt.Appendf(nil, "%s, %d", when, n)
		from.Provider.Send(t.Context(), [][]byte{f}) // fails until it is connected
		return to.Heard(f, 50*time.Millisecond)
	}) {
		t.Fatalf("%s: nothing is heard", when)
	}
}

// comesBack waits until the Broker is told that the connection was made anew, which may be after something was heard over it.
func comesBack(t *testing.T, e *providertest.Endpoint) {
	t.Helper()
	if !eventually(func() bool { return e.Reconnects() > 0 }) {
		t.Error("Reconnected was not called")
	}
}

func send(t *testing.T, from *providertest.Endpoint, frames ...string) {
	t.Helper()
	var all [][]byte
	for _, f := range frames {
		all = append(all, []byte(f))
	}
	if err := from.Provider.Send(t.Context(), all); err != nil {
		t.Fatal(err)
	}
}

// What comes while the connection of one is broken, the server keeps for it.
func TestSession_KeepsWhatComesMeanwhile(t *testing.T) {
	s := startServer(t)
	a := started(t, Config{URLs: []string{s.url()}})
	b, way := behind(t, s, Config{})
	hears(t, a, b, "at first")
	way.Cut()
	send(t, a, "meanwhile 1", "meanwhile 2")
	way.Heal()
	for _, f := range []string{"meanwhile 1", "meanwhile 2"} {
		if !b.Heard([]byte(f), patience) {
			t.Errorf("%q is lost", f)
		}
	}
	comesBack(t, b)
}

// A message is sent again over the next connection until its events are in their queues, and then no more.
func TestSession_RepeatsWhatWasNotTaken(t *testing.T) {
	s := startServer(t)
	a := started(t, Config{URLs: []string{s.url()}})
	b, way := behind(t, s, Config{})
	count := func(frame string) (n int) {
		for _, f := range b.Frames() {
			if string(f) == frame {
				n++
			}
		}
		return n
	}
	b.OnBatch(func(batch provider.Batch) {
		if string(batch.Frames[0]) == "taken" {
			batch.Done()
		}
	})
	send(t, a, "taken", "not taken")
	if !b.Heard([]byte("not taken"), patience) {
		t.Fatal("nothing is heard")
	}
	b.OnBatch(nil)
	send(t, b, "after the acknowledgement") // once that is taken, the acknowledgement is as well
	way.Cut()
	way.Heal()
	if !eventually(func() bool { return count("not taken") == 2 }) {
		t.Errorf("what was not taken is heard %d times, want 2", count("not taken"))
	}
	hears(t, b, a, "after the second acknowledgement")
	way.Cut()
	way.Heal()
	before := b.Reconnects()
	if !eventually(func() bool { return b.Reconnects() > before }) {
		t.Fatal("it does not come back")
	}
	hears(t, a, b, "afterwards")
	if count("taken") != 1 || count("not taken") != 2 {
		t.Errorf("what was taken is heard %d times and what was taken later %d, want 1 and 2", count("taken"), count("not taken"))
	}
}

// unreachable waits until the server says that nobody listens to what is sent to an instance alone.
func unreachable(t *testing.T, from, to *providertest.Endpoint) bool {
	t.Helper()
	return eventually(func() bool {
		err := from.Provider.(*Provider).SendTo(t.Context(), to.Stream(), [][]byte{[]byte("to one")})
		if err != nil && !errors.Is(err, provider.ErrUnreachable) {
			t.Fatal(err)
		}
		return err != nil
	})
}

// reachable waits until something that is sent to an instance alone arrives.
func reachable(t *testing.T, from, to *providertest.Endpoint) {
	t.Helper()
	providertest.Introduce(from, to)
	if !eventually(func() bool {
		return from.Provider.(*Provider).SendTo(t.Context(), to.Stream(), [][]byte{[]byte("reachable")}) == nil
	}) {
		t.Fatal("it cannot be reached")
	}
}

// What an instance leaves behind that ended without Close, goes by itself.
func TestSession_OfADeadInstanceExpires(t *testing.T) {
	s := startServer(t)
	a := started(t, Config{URLs: []string{s.url()}})
	b, way := behind(t, s, Config{SessionExpiry: time.Second})
	reachable(t, a, b)
	way.Cut()
	if err := a.Provider.(*Provider).SendTo(t.Context(), b.Stream(), [][]byte{[]byte("to one")}); err != nil {
		t.Errorf("right after the connection broke there is no session: %v", err)
	}
	if !unreachable(t, a, b) {
		t.Error("the session is still there")
	}
}

func TestClose_RemovesTheSession(t *testing.T) {
	s := startServer(t)
	a, b := started(t, Config{URLs: []string{s.url()}}), started(t, Config{URLs: []string{s.url()}})
	reachable(t, a, b)
	b.Close()
	var err error
	if !eventually(func() bool { // the server reads that it is to be removed after Close has returned
		err = a.Provider.(*Provider).SendTo(t.Context(), b.Stream(), [][]byte{[]byte("to one")})
		return errors.Is(err, provider.ErrUnreachable)
	}) {
		t.Errorf("SendTo an instance that was closed: %v, want ErrUnreachable", err)
	}
}

// A failed Start leaves no session either.
func TestStart_LeavesNoSessionWhenItFails(t *testing.T) {
	f := startFake(t, func(in packets.Packet) []packets.Packet {
		if m, ok := in.(*packets.Publish); ok {
			return []packets.Packet{&packets.Puback{PacketID: m.PacketID, ReasonCode: packets.PubackNotAuthorized, Properties: &packets.Properties{}}}
		}
		return nil
	})
	startFails(t, Config{URLs: []string{f.url()}}, "lacks a right")
	if !eventually(func() bool { return len(came[*packets.Disconnect](f)) > 0 }) {
		t.Fatal("it did not say goodbye")
	}
	if e := came[*packets.Disconnect](f)[0].Properties.SessionExpiryInterval; e == nil || *e != 0 {
		t.Errorf("it said goodbye with the expiry %v, want 0", e)
	}
}

// A session in which not everything was made is not used again: mosquitto would keep the subscription without No Local.
func TestSession_NotSettledIsNotResumed(t *testing.T) {
	connects, tries := 0, 0
	f := startFake(t, func(in packets.Packet) []packets.Packet {
		switch p := in.(type) {
		case *packets.Connect:
			connects++
			return []packets.Packet{&packets.Connack{SessionPresent: connects == 3 && !p.CleanStart, Properties: &packets.Properties{}}}
		case *packets.Publish:
			if tries++; tries > 1 && tries < 4 { // the connection breaks, and the trial in the new session fails
				return []packets.Packet{&raw{}, &raw{bytes: []byte{0xff}}}
			}
		}
		return nil
	})
	e := started(t, Config{URLs: []string{f.url()}})
	if err := e.Provider.Send(t.Context(), [][]byte{{1}}); err == nil {
		t.Fatal("Send succeeded")
	}
	comesBack(t, e)
	var clean []bool
	for _, hello := range came[*packets.Connect](f) {
		clean = append(clean, hello.CleanStart)
	}
	if !slices.Equal(clean, []bool{true, false, true}) {
		t.Errorf("clean starts %v, want the first, and that after the one whose session was new and failed", clean)
	}
}

// The server is killed and forgets the session; the subscriptions are made again.
func TestSession_ForgottenByTheServer(t *testing.T) {
	s := startServer(t)
	a, b := started(t, Config{URLs: []string{s.url()}}), started(t, Config{URLs: []string{s.url()}})
	reachable(t, a, b)
	s.kill()
	var err error
	if !eventually(func() bool {
		err = a.Provider.Send(t.Context(), [][]byte{[]byte("while it is away")})
		return err != nil && strings.Contains(err.Error(), "nobody listens there")
	}) {
		t.Errorf("Send while the server is away: %v", err)
	}
	s.start()
	hears(t, a, b, "afterwards")
	hears(t, b, a, "and back")
	if !eventually(func() bool {
		return a.Provider.(*Provider).SendTo(t.Context(), b.Stream(), [][]byte{[]byte("to one, afterwards")}) == nil
	}) || !b.Heard([]byte("to one, afterwards"), patience) {
		t.Error("the topic of one instance alone is not subscribed to again")
	}
	comesBack(t, a)
	comesBack(t, b)
	if b.Heard([]byte("while it is away"), 0) {
		t.Error("what Send refused was kept and sent later")
	}
}

// A network that drops everything without a word: neither end is told.
func TestLink_GivesUpASilentConnection(t *testing.T) {
	s := startServer(t)
	a := started(t, Config{URLs: []string{s.url()}})
	way := providertest.NewRelay(t, s.address)
	p := newTest(t, Config{URLs: []string{"mqtt://" + way.Addr()}})
	p.keepAlive = time.Second
	b := providertest.Start(t, p)
	hears(t, a, b, "at first")
	way.Hold()
	sent := make(chan error, 1)
	go func() { sent <- b.Provider.Send(t.Context(), [][]byte{[]byte("into silence")}) }()
	if err := <-sent; err == nil || !strings.Contains(err.Error(), "connection broke") {
		t.Errorf("Send into silence: %v", err)
	}
	way.Release()
	hears(t, a, b, "afterwards")
	comesBack(t, b)
}

// Send waits for no longer than its ctx, and for no longer than until Close.
func TestSend_IsNotHeldUpByTheNetwork(t *testing.T) {
	s := startServer(t)
	e, way := behind(t, s, Config{})
	way.Hold()
	large := make([][]byte, 200)
	for i := range large {
		large[i] = make([]byte, 30_000)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := e.Provider.Send(ctx, large); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send with a deadline: %v", err)
	}
	sent := make(chan error, 1)
	go func() { sent <- e.Provider.Send(context.Background(), large) }()
	e.Close()
	if err := <-sent; !errors.Is(err, provider.ErrClosed) {
		t.Errorf("Send while Close is called: %v", err)
	}
}

// Two that drive each other out would do so for ever. Mosquitto does not even say why it ends a connection.
func TestLink_TakesAnotherNameWhenItsOwnIsTaken(t *testing.T) {
	s := startServer(t)
	a, b := started(t, Config{URLs: []string{s.url()}}), started(t, Config{URLs: []string{s.url()}})
	hears(t, a, b, "at first")
	name := b.Provider.(*Provider).clientID
	for driven := 0; driven < 10; driven++ {
		before := b.Reconnects()
		copied := s.stranger(t, name)
		if !eventually(func() bool { return b.Reconnects() > before }) {
			t.Fatal("it does not come back")
		}
		hears(t, a, b, "afterwards")
		select {
		case <-copied.Done():
			continue
		default:
		}
		hears(t, b, a, "and back")
		if driven == 0 {
			t.Error("the copy was never driven out: the test shows nothing")
		}
		return
	}
	t.Error("they drive each other out again and again")
}

// A server that says why is believed at once.
func TestLink_TakesAnotherNameWhenTheServerSaysSo(t *testing.T) {
	var once sync.Once
	f := startFake(t, func(in packets.Packet) (answer []packets.Packet) {
		if m, ok := in.(*packets.Publish); ok && len(m.Payload) > 0 {
			once.Do(func() {
				answer = []packets.Packet{&packets.Disconnect{ReasonCode: packets.DisconnectSessionTakenOver, Properties: &packets.Properties{}}}
			})
		}
		return answer
	})
	e := started(t, Config{URLs: []string{f.url()}})
	if err := e.Provider.Send(t.Context(), [][]byte{{1}}); err == nil {
		t.Fatal("Send succeeded")
	}
	comesBack(t, e)
	hellos := came[*packets.Connect](f)
	if len(hellos) != 2 || hellos[0].ClientID == hellos[1].ClientID || !hellos[1].CleanStart {
		t.Errorf("of %d connections, the last with the name %q, clean start %t, the first with %q", len(hellos), hellos[len(hellos)-1].ClientID, hellos[len(hellos)-1].CleanStart, hellos[0].ClientID)
	}
}

// A server that is gone is left for the next one.
func TestURLs_AreTriedInTurn(t *testing.T) {
	first, second := startServer(t), startServer(t)
	urls := []string{"mqtt://127.0.0.1:1", first.url(), second.url()}
	a := started(t, Config{URLs: urls})
	b := started(t, Config{URLs: []string{first.url()}})
	hears(t, a, b, "at the first that serves")
	c := started(t, Config{URLs: []string{second.url()}})
	first.kill()
	hears(t, a, c, "at the second")
	comesBack(t, a)
}

// The server decides how often it is asked, but this client asks no less often than it wants to: that is how it notices.
func TestLink_KeepAlive(t *testing.T) {
	for _, tt := range []struct {
		name string
		says *uint16       // seconds
		want time.Duration // between two questions
	}{
		{"the server says nothing", nil, keepAlive},
		{"the server wants more", new(uint16(2)), 2 * time.Second},
		{"the server wants less", new(uint16(60)), keepAlive},
		{"the server wants nothing", new(uint16(0)), keepAlive},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{answer: func(in packets.Packet) []packets.Packet {
					if _, ok := in.(*packets.Connect); ok {
						return []packets.Packet{&packets.Connack{Properties: &packets.Properties{ServerKeepAlive: tt.says}}}
					}
					return nil
				}}
				e := f.endpoint(t)
				time.Sleep(10*tt.want + tt.want/2)
				synctest.Wait()
				if n := len(came[*packets.Pingreq](f)); n != 10 && n != 11 { // the first may be at once
					t.Errorf("it was asked %d times in %v, want 10", n, 10*tt.want)
				}
				e.Close()
				f.tasks.Wait()
			})
		})
	}
}

// A server that is there, and swallows a message: Send would wait for ever, and the Broker with it.
func TestLink_EndsWhenAMessageIsNotAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		swallowed := false
		f := &fake{answer: func(in packets.Packet) []packets.Packet {
			if m, ok := in.(*packets.Publish); ok && len(m.Payload) > 0 && !swallowed {
				swallowed = true
				return []packets.Packet{}
			}
			return nil
		}}
		e := f.endpoint(t)
		err := e.Provider.Send(t.Context(), [][]byte{{1}, {2}})
		if err == nil || !strings.Contains(err.Error(), "has not acknowledged a message for 10s") {
			t.Errorf("Send: %v", err)
		}
		time.Sleep(time.Second)
		if e.Reconnects() != 1 {
			t.Errorf("Reconnected was called %d times, want once", e.Reconnects())
		}
		if err := e.Provider.Send(t.Context(), [][]byte{{1}, {2}}); err != nil {
			t.Errorf("Send afterwards: %v", err)
		}
		if bye := came[*packets.Disconnect](f); len(bye) != 1 || bye[0].Properties.SessionExpiryInterval != nil {
			t.Errorf("it said goodbye with %v, want once, and that the session is to be kept", bye)
		}
		e.Close()
		f.tasks.Wait()
	})
}

// Whatever keeps the connection together, such as a proxy, the application can bring.
func TestDial_IsUsed(t *testing.T) {
	s := startServer(t)
	var dialled []string
	e := started(t, Config{
		URLs: []string{"mqtt://broker.invalid:77"},
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			dialled = append(dialled, address)
			return new(net.Dialer).DialContext(ctx, "tcp", s.address)
		},
	})
	if len(dialled) != 1 || dialled[0] != "broker.invalid:77" {
		t.Errorf("dialled %q", dialled)
	}
	hears(t, e, started(t, Config{URLs: []string{s.url()}}), "through it")
}
