package redisbus

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// envOf returns an environment for a Start that fails.
func envOf(tb testing.TB) provider.Env {
	return providertest.NewEndpoint(tb, newTest(tb, Config{URL: "redis://h"}), provider.Env{}).Env()
}

// Whatever is wrong, the operator reads one line that says what to do, without the password.
func TestStart_SaysWhatToDo(t *testing.T) {
	s := startServer(t, "--requirepass", "operators")
	s.do("ACL", "SETUSER", "app", "on", ">"+secret, "&carillon:*", "+publish", "+subscribe", "+ping")
	s.do("ACL", "SETUSER", "mute", "on", ">"+secret, "&carillon:*", "+subscribe", "+ping")
	s.do("ACL", "SETUSER", "deaf", "on", ">"+secret, "&carillon:*", "+publish", "+ping")
	s.do("ACL", "SETUSER", "elsewhere", "on", ">"+secret, "resetchannels", "&other:*", "+publish", "+subscribe", "+ping")
	replica := startServer(t, append([]string{"--replicaof"}, strings.Split(s.address, ":")...)...)
	full := startServer(t, "--maxclients", "1")
	only, err := net.Dial("tcp", full.address)
	if err != nil {
		t.Fatal(err)
	}
	defer only.Close()
	as := func(user string) string { return "redis://" + user + "@" + s.address }
	for _, tt := range []struct {
		name, url string
		want      string // in the error; empty: it starts
	}{
		{"the rights that the documentation names suffice", as("app:" + secret), ""},
		{"wrong password", as("app:wrong" + secret), "user name or password is wrong"},
		{"unknown user", as("nobody:" + secret), "user name or password is wrong"},
		{"no password", s.url(), "it wants a password"},
		{"no right to publish", as("mute:" + secret), "redis: publish at " + s.address + ": the user lacks a right"},
		{"no right to subscribe", as("deaf:" + secret), "redis: subscribe at " + s.address + ": the user lacks a right"},
		{"no right to the channels", as("elsewhere:" + secret), "grant it: ACL SETUSER name +publish +subscribe +ping &carillon:*"},
		{"unknown host", "redis://u:" + secret + "@host.invalid", `the host "host.invalid" is not known`},
		{"nobody listens", "redis://u:" + secret + "@127.0.0.1:1", "nobody listens there"},
		{"a server without TLS", "rediss://app:" + secret + "@" + s.address + "?dial_timeout=300ms", "does it speak TLS there"},
		{"a replica", replica.url(), "it is a read-only replica"},
		{"no room", full.url(), "no room (maxclients)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newTest(t, Config{URL: tt.url})
			e := providertest.NewEndpoint(t, p, provider.Env{})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := e.Start(ctx)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			t.Log(err)
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error shows the password, or is several lines: %v", err)
			}
		})
	}
}

func TestExplain_AnswersThatNoTestServerGives(t *testing.T) {
	for _, tt := range []struct{ answer, want string }{
		{"LOADING Redis is loading the dataset in memory", "wait until it has"},
		{"READONLY You can't write against a read only replica.", "primary's address"},
		{"DENIED Redis is running in protected mode because ...\nsecond line", "protected mode"},
		{"ERR max number of clients reached", "raise its maxclients"},
		{"ERR something new\nin two lines", "ERR something new; see the log"},
	} {
		what, remedy := diagnoseAnswer("carillon", tt.answer)
		if line := what + "; " + remedy; !strings.Contains(line, tt.want) || strings.Contains(line, "\n") {
			t.Errorf("%q is explained as %q, want one line with %q", tt.answer, line, tt.want)
		}
	}
}

// A right that is taken away while the instance runs shows in Send, and is enough again when it is given back.
func TestSend_RightsRevokedAndGranted(t *testing.T) {
	s := startServer(t, "--requirepass", "operators")
	s.do("ACL", "SETUSER", "app", "on", ">"+secret, "&carillon:*", "+publish", "+subscribe", "+ping")
	url := "redis://app:" + secret + "@" + s.address
	a, b := providertest.Start(t, newTest(t, Config{URL: url})), providertest.Start(t, newTest(t, Config{URL: url}))
	providertest.Introduce(a, b)
	carry := func(frame string) {
		t.Helper()
		if !eventually(func() bool {
			a.Provider.Send(t.Context(), [][]byte{[]byte(frame)}) // fails until it is connected again
			return b.Heard([]byte(frame), 10*time.Millisecond)
		}) {
			t.Fatalf("%q is not heard", frame)
		}
	}
	carry("at first")

	s.do("ACL", "SETUSER", "app", "-publish")
	err := a.Provider.Send(t.Context(), [][]byte{[]byte("without the right")})
	if err == nil || !strings.Contains(err.Error(), "ACL SETUSER name +publish") {
		t.Errorf("Send without the right to publish: %v", err)
	}
	if errors.Is(err, provider.ErrClosed) || errors.Is(err, provider.ErrFrameTooLarge) {
		t.Errorf("Send without the right to publish: %v, which is final", err)
	}
	s.do("ACL", "SETUSER", "app", "+publish")
	carry("with it again")

	before := b.Reconnects()
	s.do("ACL", "SETUSER", "app", "resetchannels") // the server cuts off whoever is subscribed
	if !eventually(func() bool {
		err = b.Provider.Send(t.Context(), [][]byte{[]byte("without the channel")})
		return err != nil && strings.Contains(err.Error(), "&carillon:*")
	}) {
		t.Errorf("Send without the right to the channel: %v", err)
	}
	s.do("ACL", "SETUSER", "app", "&carillon:*")
	carry("with the channel again")
	if b.Reconnects() == before {
		t.Error("Reconnected was not called")
	}
}
