package mqttbus

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// started starts a Provider that the test closes.
func started(tb testing.TB, cfg Config) *providertest.Endpoint {
	tb.Helper()
	return providertest.Start(tb, newTest(tb, cfg))
}

// startFails starts a Provider and returns why it did not; it checks that this is one line, with want, and without the secret.
func startFails(t *testing.T, cfg Config, want string) {
	t.Helper()
	p := newTest(t, cfg)
	p.readingWithin = 300 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := providertest.NewEndpoint(t, p, provider.Env{}).Start(ctx)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("error %v, want one with %q", err, want)
	}
	t.Log(err)
	providertest.CheckNoSecret(t, secret, err, p)
}

const (
	may      = "topic readwrite carillon/#"
	mayWrite = "topic write carillon/#"
	mayRead  = "topic read carillon/#"
)

// Whatever is wrong, the operator reads one line that says what to do, without the password.
func TestStart_SaysWhatToDo(t *testing.T) {
	s := startServer(t)
	s.setUsers(secret, map[string][]string{"app": {may}, "mute": {mayRead}, "deaf": {mayWrite}, "elsewhere": {"topic readwrite other/#"}})
	s.configure("password_file "+s.folder+"/passwords", "acl_file "+s.folder+"/acl")
	s.restart()
	small := startServer(t, "max_packet_size 20000")
	tiny := startServer(t, "max_packet_size 600")
	zero := startServer(t, "max_qos 0")
	full := startServer(t, "max_connections 1")
	full.stranger(t, "")
	full.stranger(t, "") // it counts from 0
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	go func() {
		for c, err := web.Accept(); err == nil; c, err = web.Accept() {
			c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			c.Close()
		}
	}()
	as := func(user string) string { return "mqtt://" + user + "@" + s.address }
	t.Run("the rights that the documentation names suffice", func(t *testing.T) { started(t, Config{URLs: []string{as("app:" + secret)}}) })
	for _, tt := range []struct {
		name, url string
		want      string // in the error
	}{
		{"wrong password", as("app:wrong" + secret), "user name or password is wrong"},
		{"unknown user", as("nobody:" + secret), "user name or password is wrong"},
		{"no password", s.url(), "user name or password is wrong or missing"},
		{"no right to publish", as("mute:" + secret), "mqtt: publish at mqtt://" + s.address + ": the user lacks a right; grant it: readwrite carillon/#"},
		{"no right to read", as("deaf:" + secret), "let the user read it: readwrite carillon/#"},
		{"no right to the topics", as("elsewhere:" + secret), "grant it: readwrite carillon/#"},
		{"unknown host", "mqtt://u:" + secret + "@host.invalid", `the host "host.invalid" is not known`},
		{"nobody listens", "mqtt://u:" + secret + "@127.0.0.1:1", "nobody listens there"},
		{"a server without TLS", "mqtts://app:" + secret + "@" + s.address, "not speak TLS there (mqtt://)"},
		{"a server that takes less", small.url(), "raise its limit to 32867 (mosquitto: max_packet_size), or set MaxFrameBytes to 19901"},
		{"a server that takes nothing", tiny.url(), "raise its limit to 32867 (mosquitto: max_packet_size)"},
		{"a server without QoS 1", zero.url(), "it carries messages with QoS 0 only"},
		{"no room", full.url(), "no room (max_connections)"},
		{"another kind of server", "mqtt://" + web.Addr().String(), "is it an MQTT server"},
	} {
		t.Run(tt.name, func(t *testing.T) { startFails(t, Config{URLs: []string{tt.url}}, tt.want) })
	}
}

// What mosquitto never says, or says only under circumstances that a test cannot make.
func TestStart_ExplainsWhatServersSay(t *testing.T) {
	none := &packets.Properties{}
	greets := func(code byte, p *packets.Properties) func(packets.Packet) []packets.Packet {
		return func(in packets.Packet) []packets.Packet {
			if _, ok := in.(*packets.Connect); ok {
				return []packets.Packet{&packets.Connack{ReasonCode: code, Properties: p}}
			}
			return nil
		}
	}
	for _, tt := range []struct {
		name   string
		answer func(packets.Packet) []packets.Packet
		want   string
	}{
		{"MQTT 3.1.1 alone", func(in packets.Packet) []packets.Packet {
			if _, ok := in.(*packets.Connect); ok {
				return []packets.Packet{&raw{bytes: []byte{0x20, 2, 0, 1}}}
			}
			return nil
		}, "it speaks no MQTT 5, but an older version; use a server that does"},
		{"MQTT 3.1.1, said by MQTT 5", greets(packets.ConnackUnsupportedProtocolVersion, none), "it speaks no MQTT 5"},
		{"the older code in the newer answer", greets(1, none), "it speaks no MQTT 5"},
		{"a wrong password", greets(packets.ConnackBadUsernameOrPassword, none), "user name or password is wrong"},
		{"a client identifier", greets(packets.ConnackInvalidClientID, none), `allow those that begin with "carillon"`},
		{"busy", greets(packets.ConnackServerBusy, none), "too much to do"},
		{"banned", greets(packets.ConnackBanned, none), "banned"},
		{"a quota", greets(packets.ConnackQuotaExceeded, &packets.Properties{ReasonString: "ten\nclients"}), `a quota of the server is exceeded (it says "ten"); raise it`},
		{"another server", greets(packets.ConnackServerMoved, none), "put that one into the URL"},
		{"something new", greets(0xfe, none), "reason 0xfe; see the log of the server"},
		{"no messages at once", greets(0, &packets.Properties{ReceiveMaximum: new(uint16(0))}), "Receive Maximum is 0"},
		{"a subscription refused", func(in packets.Packet) []packets.Packet {
			if s, ok := in.(*packets.Subscribe); ok {
				return []packets.Packet{&packets.Suback{PacketID: s.PacketID, Reasons: []byte{packets.SubackNotauthorized}, Properties: none}}
			}
			return nil
		}, "mqtt: subscribe at mqtt://127.0.0.1:"},
		{"a subscription with less", func(in packets.Packet) []packets.Packet {
			if s, ok := in.(*packets.Subscribe); ok {
				return []packets.Packet{&packets.Suback{PacketID: s.PacketID, Reasons: []byte{0}, Properties: none}}
			}
			return nil
		}, "it grants QoS 0 only"},
		{"answers that are missing", func(in packets.Packet) []packets.Packet {
			if s, ok := in.(*packets.Subscribe); ok {
				return []packets.Packet{&packets.Suback{PacketID: s.PacketID, Properties: none}}
			}
			return nil
		}, "it answered for 0 of 1 topics"},
		{"a message refused", func(in packets.Packet) []packets.Packet {
			if m, ok := in.(*packets.Publish); ok {
				return []packets.Packet{&packets.Puback{PacketID: m.PacketID, ReasonCode: packets.PubackTopicNameInvalid, Properties: none}}
			}
			return nil
		}, "allow carillon/#, or set another Prefix"},
		{"an authentication that nobody asked for", func(in packets.Packet) []packets.Packet {
			if _, ok := in.(*packets.Connect); ok {
				return []packets.Packet{&packets.Auth{ReasonCode: packets.AuthContinueAuthentication, Properties: none}}
			}
			return nil
		}, "was not asked for"},
		{"a goodbye", func(in packets.Packet) []packets.Packet {
			if _, ok := in.(*packets.Subscribe); ok {
				return []packets.Packet{&packets.Disconnect{ReasonCode: packets.DisconnectAdministrativeAction, Properties: none}}
			}
			return nil
		}, "its operator has ended the connection"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			startFails(t, Config{URLs: []string{startFake(t, tt.answer).url()}}, tt.want)
		})
	}
}

// What a server may say beside its yes does no harm.
func TestStart_TakesWhatServersSay(t *testing.T) {
	for _, tt := range []struct {
		name string
		says packets.Properties
	}{
		{"a method of authentication", packets.Properties{AuthMethod: "method"}},
		{"no wildcards, no shared subscriptions, nothing retained", packets.Properties{WildcardSubAvailable: new(byte), SharedSubAvailable: new(byte), RetainAvailable: new(byte), SubIDAvailable: new(byte)}},
		{"a shorter expiry", packets.Properties{SessionExpiryInterval: new(uint32(1))}},
		{"one message at once", packets.Properties{ReceiveMaximum: new(uint16(1))}},
		{"just enough for a packet", packets.Properties{MaximumPacketSize: new(uint32(32867))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := started(t, Config{URLs: []string{startFake(t, func(in packets.Packet) []packets.Packet {
				if _, ok := in.(*packets.Connect); ok {
					return []packets.Packet{&packets.Connack{Properties: &tt.says}}
				}
				return nil
			}).url()}})
			if err := e.Provider.Send(t.Context(), [][]byte{{1}, {2}, {3}}); err != nil {
				t.Error(err)
			}
		})
	}
}

// refusing returns an answer to every message with contents.
func refusing(code byte) func(packets.Packet) []packets.Packet {
	return func(in packets.Packet) []packets.Packet {
		if m, ok := in.(*packets.Publish); ok && len(m.Payload) > 0 {
			return []packets.Packet{&packets.Puback{PacketID: m.PacketID, ReasonCode: code, Properties: &packets.Properties{}}}
		}
		return nil
	}
}

// What the server refuses, Send says, and is not taken for the end of everything.
func TestSend_SaysWhatTheServerRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		code  byte
		want  string // in the error; empty: none
		final bool
	}{
		{"nobody is subscribed", packets.PubackNoMatchingSubscribers, "", false},
		{"a quota", packets.PubackQuotaExceeded, "a quota of the server is exceeded; raise it, or make room", false},
		{"a right", packets.PubackNotAuthorized, "grant it: readwrite carillon/#", false},
		{"a reason that is not told", packets.PubackUnspecifiedError, "reason 0x80; see the log of the server", false},
		{"too large", packets.DisconnectPacketTooLarge, "lower MaxFrameBytes", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := started(t, Config{URLs: []string{startFake(t, refusing(tt.code)).url()}})
			err := e.Provider.Send(t.Context(), [][]byte{{1}, {2}})
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			if final := errors.Is(err, provider.ErrFrameTooLarge); final != tt.final || errors.Is(err, provider.ErrClosed) {
				t.Errorf("%v: final %t, want %t", err, final, tt.final)
			}
			providertest.CheckNoSecret(t, secret, err)
		})
	}
}
