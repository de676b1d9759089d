package mqttbus

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/carillontest"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
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
	s := startServer(t)
	carillontest.FullSpeed{
		Provider: func(int) provider.Provider {
			return newTest(t, Config{URLs: []string{s.url()}, MaxFrameBytes: minFrameBytes})
		},
		Events: 4_000,
		Bytes:  300, // one in a frame, so that it is the number of messages that counts
	}.Run(t)
	if said := s.said(); strings.Contains(said, "dropped") {
		t.Errorf("the server dropped messages: %s", said)
	}
}
