package azurebus

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"
	"github.com/Azure/go-amqp"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/azurebus/emulator"
	"github.com/carillon-go/carillon/provider/providertest"
)

const secret = "b3Blbi1zZXNhbWU="

// as returns a Config with the key app, which may do what rights say.
func as(e *emulator.Emulator, rights emulator.Rights) Config {
	e.Grant("app", secret, rights)
	return Config{ConnectionString: e.ConnectionStringOf(e.Addr(), "app", secret), HTTP: e.Administration()}
}

func TestStart_SaysWhatIsWrongInOneLineWithoutSecrets(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	small := startEmulator(t, emulator.Options{MaxMessageBytes: 16 << 10})
	encrypted := startEmulator(t, emulator.Options{TLS: true})
	cut := func(cfg Config, old, new string) Config {
		cfg.ConnectionString = strings.Replace(cfg.ConnectionString, old, new, 1)
		return cfg
	}
	named := func(cfg Config) Config {
		cfg.Subscription = "by-hand"
		return cfg
	}
	// Each case has a key of its own: rights are those of the moment.
	with := func(name string, rights emulator.Rights) Config {
		e.Grant(name, secret, rights)
		return Config{ConnectionString: e.ConnectionStringOf(e.Addr(), name, secret), HTTP: e.Administration()}
	}
	identity := func(token string, roots bool) Config {
		cfg := Config{Namespace: encrypted.Addr(), Credential: bearer(token), HTTP: encrypted.Administration()}
		if roots {
			cfg.TLS = &tls.Config{RootCAs: encrypted.Roots()}
		}
		return cfg
	}
	encrypted.GrantToken(secret, emulator.All)
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // what to do about it
	}{
		{"wrong key", cut(with("wrong", emulator.All), secret, "wrong"+secret), "check its key"},
		{"wrong key, named subscription", named(cut(with("named", emulator.All), secret, "wrong"+secret)), "check its key"},
		{"no such key", cut(with("missing", emulator.All), "missing", "absent"), "check its key"},
		{"no right to manage", with("unmanaged", emulator.Send|emulator.Listen), "the rights Manage, Send and Listen"},
		{"no right to send", with("mute", emulator.Manage|emulator.Listen), "the rights Manage, Send and Listen"},
		{"no right to listen", with("deaf", emulator.Manage|emulator.Send), "the rights Manage, Send and Listen"},
		{"no such subscription", named(with("lonely", emulator.All)), "in it the subscription by-hand"},
		{"identity refused", identity("another-token", true), "the role Azure Service Bus Data Owner"},
		{"certificate", identity(secret, false), "make this system trust who signed it"},
		{"frames too large", Config{ConnectionString: small.ConnectionString(), HTTP: small.Administration()}, "lower MaxFrameBytes"},
		{"nobody listens", cut(with("nowhere", emulator.All), e.Addr(), "127.0.0.1:1"), "correct the namespace"},
		{"another server", cut(with("elsewhere", emulator.All), e.Addr(), webServer(t)), "correct the namespace"},
		{"no administration", func() Config { cfg := with("x", emulator.All); cfg.HTTP = closedDoor{}; return cfg }(), "correct the namespace"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newProvider(t, tt.cfg)
			ep := providertest.NewEndpoint(t, p, provider.Env{})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := ep.Start(ctx)
			defer ep.Close()
			if err == nil {
				t.Fatal("Start returned nil")
			}
			t.Log(err)
			if text := err.Error(); !strings.HasPrefix(text, "azure: ") || !strings.Contains(text, tt.want) || strings.Contains(text, "\n") {
				t.Errorf("Start: %q; want one line with %q", text, tt.want)
			}
			providertest.CheckNoSecret(t, secret, err, p, tt.cfg, &tt.cfg)
			if p.cfg.owned {
				if left := e.Subscriptions(topicOf(p.cfg.prefix, ep.Env().Site)); len(left) > 0 {
					t.Errorf("the failed Start leaves the subscriptions %q", left)
				}
			}
		})
	}
}

// webServer returns the address of a server that speaks something else.
func webServer(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
			io.ReadFull(c, make([]byte, 8)) // or else the answer is lost
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// A closedDoor is an administration that nobody reaches.
type closedDoor struct{}

func (closedDoor) Do(req *http.Request) (*http.Response, error) {
	_, err := net.Dial("tcp", "127.0.0.1:1")
	return nil, err
}

// A bearer is an identity with a token.
type bearer string

func (t bearer) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(t), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func TestProvider_WorksForAnIdentityOverTLS(t *testing.T) {
	e := startEmulator(t, emulator.Options{TLS: true})
	e.GrantToken(secret, emulator.All)
	cfg := Config{Namespace: e.Addr(), Credential: bearer(secret), HTTP: e.Administration(), TLS: &tls.Config{RootCAs: e.Roots()}}
	a, b := providertest.Start(t, newProvider(t, cfg)), providertest.Start(t, newProvider(t, cfg))
	send(t, a, "frame")
	hears(t, b, "frame")
}

// With the rights to send and to listen alone, somebody else has made topic and subscriptions, with the rule that there is without
// another one: the own echo is dropped here then.
func TestProvider_WorksWithoutTheRightToManage(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	c, err := admin.NewClientFromConnectionString(e.ConnectionString(), &admin.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: e.Administration()}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := as(e, emulator.Send|emulator.Listen)
	var eps []*providertest.Endpoint
	for _, name := range []string{"one", "two", "three"} {
		cfg.Subscription = name
		ep := providertest.NewEndpoint(t, newProvider(t, cfg), provider.Env{})
		topic, _ := own(ep)
		if _, err := c.CreateTopic(t.Context(), topic, nil); err != nil && name == "one" {
			t.Fatal(err)
		}
		if _, err := c.CreateSubscription(t.Context(), topic, name, nil); err != nil {
			t.Fatal(err)
		}
		if err := ep.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		eps = append(eps, ep)
	}
	providertest.Introduce(eps...)
	if err := eps[0].Provider.(provider.Unicaster).SendTo(t.Context(), eps[1].Stream(), bytesOf("for two")); err != nil {
		t.Fatal(err)
	}
	send(t, eps[0], "for all")
	hears(t, eps[1], "for two")
	hears(t, eps[1], "for all")
	hears(t, eps[2], "for all")
	topic, _ := own(eps[0])
	for _, name := range []string{"one", "two", "three"} {
		eventually(t, "all is acknowledged", func() bool { n, _ := e.Kept(topic, name); return n == 0 })
	}
	if n, m := len(eps[0].Frames()), len(eps[2].Frames()); n != 0 || m != 1 {
		t.Errorf("who sent has %d frames, who was not meant %d; want 0 and 1", n, m)
	}
	for _, ep := range eps {
		if err := ep.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := len(e.Subscriptions(topic)); n != 3 {
		t.Errorf("after Close %d subscriptions that were made by hand are left, want 3", n)
	}
}

func TestSend_FailsWhileSomethingIsMissingAndNoLonger(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		begin, end func(e *emulator.Emulator)
		everybody  bool // it hits who listens as well
	}{
		{name: "right to send", want: "Send and Listen", begin: grant(emulator.Manage | emulator.Listen), end: grant(emulator.All)},
		{name: "right to listen", want: "Send and Listen", begin: grant(emulator.Manage | emulator.Send), end: grant(emulator.All), everybody: true},
		{name: "all rights", want: "Send and Listen", begin: grant(0), end: grant(emulator.All), everybody: true},
		{name: "key changed", want: "check its key", begin: func(e *emulator.Emulator) { e.Grant("app", "another", 0); e.Cut() }, end: grant(emulator.All), everybody: true},
		{name: "quota", want: "the topic is full", begin: func(e *emulator.Emulator) { e.Quota(1) }, end: func(e *emulator.Emulator) { e.Quota(0) }},
		{name: "throttled", want: "throttled", begin: func(e *emulator.Emulator) { e.Throttle(true) }, end: func(e *emulator.Emulator) { e.Throttle(false) }},
		{name: "disabled", want: "disabled", begin: func(e *emulator.Emulator) { e.Disable(true) }, end: func(e *emulator.Emulator) { e.Disable(false) }, everybody: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := startEmulator(t, emulator.Options{LockDuration: time.Second})
			cfg := as(e, emulator.All)
			a, b := providertest.Start(t, newProvider(t, cfg)), providertest.Start(t, newProvider(t, cfg))
			providertest.Introduce(a, b)
			send(t, a, "before")
			hears(t, b, "before")
			tt.begin(e)
			var err error
			eventually(t, "Send fails", func() bool {
				err = a.Provider.Send(t.Context(), bytesOf("lost"))
				return err != nil && strings.Contains(err.Error(), tt.want)
			})
			t.Log(err)
			if text := err.Error(); strings.Contains(text, "\n") || !strings.HasPrefix(text, "azure: ") {
				t.Errorf("Send: %q; want one line", text)
			}
			if errors.Is(err, provider.ErrClosed) || errors.Is(err, provider.ErrFrameTooLarge) {
				t.Errorf("Send: %v, which is final", err)
			}
			providertest.CheckNoSecret(t, secret, err)
			tt.end(e)
			eventually(t, "it carries again, both ways", func() bool {
				return a.Provider.Send(t.Context(), bytesOf("there")) == nil && b.Provider.Send(t.Context(), bytesOf("back")) == nil &&
					b.Heard([]byte("there"), 10*time.Millisecond) && a.Heard([]byte("back"), 10*time.Millisecond)
			})
			if tt.everybody {
				eventually(t, "both are told", func() bool { return a.Reconnects() > 0 && b.Reconnects() > 0 })
			}
		})
	}
}

func grant(r emulator.Rights) func(e *emulator.Emulator) {
	return func(e *emulator.Emulator) { e.Grant("app", secret, r) }
}

// Who is told that the service is too busy keeps quiet for a while.
func TestSend_DoesNotPressAServiceThatIsBusy(t *testing.T) {
	e := startEmulator(t, emulator.Options{})
	a, _ := pairOn(t, e)
	e.Throttle(true)
	for range 100 {
		if err := a.Provider.Send(t.Context(), bytesOf("frame")); !isBusy(err) {
			t.Fatalf("Send: %v; want that it is throttled", err)
		}
	}
	if n := e.Operations().Throttled; n > 2 {
		t.Errorf("of 100 calls of Send at a busy service %d asked it", n)
	}
}

func TestThrottle_WaitsLongerEachTime(t *testing.T) {
	var q throttle
	busy := error(&amqp.Error{Condition: condBusy})
	now := time.Unix(0, 0)
	for _, want := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second} {
		q.tell(now, busy)
		if q.ask(now.Add(want-1)) == nil || q.ask(now.Add(want)) != nil {
			t.Errorf("it does not wait for %v", want)
		}
	}
	q.tell(now, nil)
	q.tell(now, busy)
	if q.ask(now.Add(2*time.Second)) != nil {
		t.Error("after it went well it waits longer than at first")
	}
}

func TestConfig_ShowsNoSecret(t *testing.T) {
	cfg := Config{ConnectionString: "Endpoint=sb://example.servicebus.windows.net/;SharedAccessKeyName=app;SharedAccessKey=" + secret}
	p := newProvider(t, cfg)
	providertest.CheckNoSecret(t, secret, cfg, &cfg, p, p.cfg)
	if b, err := json.Marshal(cfg); err != nil || !strings.Contains(string(b), "example.servicebus.windows.net") {
		t.Errorf("%s, %v; want the namespace", b, err)
	}
}

func TestNew_RefusesWhatCannotBe(t *testing.T) {
	good := "Endpoint=sb://example.servicebus.windows.net/;SharedAccessKeyName=app;SharedAccessKey=" + secret
	for _, tt := range []struct {
		name, want string
		cfg        Config
	}{
		{"nothing", "ConnectionString is missing", Config{}},
		{"both", "both set", Config{ConnectionString: good, Namespace: "x"}},
		{"no identity", "belong together", Config{Namespace: "example.servicebus.windows.net"}},
		{"namespace", "want a host", Config{Namespace: "https://example", Credential: bearer("x")}},
		{"no endpoint", "Endpoint is missing", Config{ConnectionString: "SharedAccessKeyName=app;SharedAccessKey=" + secret}},
		{"no key", "SharedAccessKey is missing", Config{ConnectionString: "Endpoint=sb://x;SharedAccessKeyName=" + secret}},
		{"key alone", "a part has no value", Config{ConnectionString: secret[:5] + secret[:8]}},
		{"scheme", "Endpoint is no address", Config{ConnectionString: strings.Replace(good, "sb:", "https:", 1)}},
		{"password in the endpoint", "Endpoint is no address", Config{ConnectionString: strings.Replace(good, "sb://", "sb://app:"+secret+"@", 1)}},
		{"emulator", "neither true nor false", Config{ConnectionString: good + ";UseDevelopmentEmulator=" + secret}},
		{"prefix", "Prefix", Config{ConnectionString: good, Prefix: "a b"}},
		{"prefix that would end the topic", "Prefix", Config{ConnectionString: good, Prefix: "a/"}},
		{"subscription", "Subscription", Config{ConnectionString: good, Subscription: strings.Repeat("x", 51)}},
		{"quote", "Subscription", Config{ConnectionString: good, Subscription: "a'b"}},
		{"frames", "MaxFrameBytes", Config{ConnectionString: good, MaxFrameBytes: 1 << 20}},
		{"idle", "DeleteWhenIdle", Config{ConnectionString: good, DeleteWhenIdle: time.Minute}},
		{"ttl", "TimeToLive", Config{ConnectionString: good, TimeToLive: -1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New(tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) || p != nil {
				t.Fatalf("New: %v; want an error with %q", err, tt.want)
			}
			providertest.CheckNoSecret(t, secret, err, tt.cfg)
		})
	}
}

func TestExplain_IsOneLine(t *testing.T) {
	p := newProvider(t, Config{ConnectionString: "Endpoint=sb://x;SharedAccessKeyName=a;SharedAccessKey=b"})
	err := p.explain(errors.New("first\nsecond " + strings.Repeat("x", 1000)))
	if text := err.Error(); strings.Contains(text, "\n") || len(text) > 400 {
		t.Errorf("%q", text)
	}
	if p.explain(err) != err || p.explain(context.Canceled) != context.Canceled || p.explain(nil) != nil {
		t.Error("what is explained, or needs no explanation, is explained")
	}
}
