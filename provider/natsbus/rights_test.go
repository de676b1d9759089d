package natsbus

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

const password = "open-sesame"

// users returns the part of a configuration that lets one user in, with rights to publish and to subscribe.
func users(publish, subscribe string) string {
	return fmt.Sprintf("authorization { users = [ {user: app, password: %q, permissions: {publish: %s, subscribe: %s}} ] }", password, publish, subscribe)
}

const (
	everything = `"carillon.>"`
	nothing    = `{deny: ">"}`
)

func TestStart_SaysWhatIsWrongInOneLineWithoutSecrets(t *testing.T) {
	open, guarded := startServer(t, ""), startServer(t, users(everything, everything))
	mute, deaf := startServer(t, users(nothing, everything)), startServer(t, users(everything, nothing))
	small := startServer(t, "max_payload: 16000")
	in := func(s *testServer, cfg Config) Config {
		cfg.URLs = []string{s.url()}
		return cfg
	}
	app := Config{User: "app", Password: password}
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // what to do about it
	}{
		{"wrong password", in(guarded, Config{User: "app", Password: "wrong-" + password}), "check User and Password"},
		{"wrong password in the URL", Config{URLs: []string{"nats://app:wrong-" + password + "@" + guarded.address}}, "check User and Password"},
		{"no credentials", in(guarded, Config{}), "check User and Password"},
		{"wrong token", in(guarded, Config{Token: "wrong-" + password}), "check User and Password"},
		{"no right to publish", in(mute, app), "no right to publish to carillon."},
		{"no right to subscribe", in(deaf, app), "no right to subscribe to carillon."},
		{"frames too large", in(small, Config{}), "16000 bytes at most (max_payload)"},
		{"nobody listens", Config{URLs: []string{"nats://app:" + password + "@127.0.0.1:1"}}, "is the server running"},
		{"TLS with a server that has none", Config{URLs: []string{"tls://app:" + password + "@" + open.address}}, "the server speaks no TLS"},
		{"no such file", in(open, Config{CredentialsFile: "/nonexistent.creds"}), "/nonexistent.creds"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := providertest.NewEndpoint(t, newProvider(t, tt.cfg), provider.Env{})
			err := e.Start(t.Context())
			defer e.Close()
			if err == nil {
				t.Fatal("Start returned nil")
			}
			t.Log(err)
			if text := err.Error(); !strings.Contains(text, tt.want) || strings.Contains(text, password) || strings.Contains(text, "\n") {
				t.Errorf("Start: %q; want one line with %q, and no password", text, tt.want)
			}
		})
	}
}

func TestUnreachable_NamesAHostThatIsNotThere(t *testing.T) {
	p := newProvider(t, Config{URLs: []string{"nats://app:" + password + "@nats.example"}})
	err := p.unreachable(&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "nats.example", IsNotFound: true}})
	if text := err.Error(); !strings.Contains(text, "nats.example") || !strings.Contains(text, "check the host's name") || strings.Contains(text, password) {
		t.Errorf("%q", text)
	}
}

// reload makes the running server take another configuration.
func (s *testServer) reload(configuration string) {
	s.tb.Helper()
	before := strings.Count(s.log(), "Reloaded server configuration")
	s.configure(configuration)
	s.hangUp()
	eventually(s.tb, "the server reloads its configuration", func() bool {
		return strings.Count(s.log(), "Reloaded server configuration") > before
	})
}

func TestSend_FailsWhileARightIsMissingAndNoLonger(t *testing.T) {
	for _, tt := range []struct {
		name, without, want string
		is                  error
	}{
		{"to publish", users(nothing, everything), "no right to publish", nats.ErrPermissionViolation},
		{"to subscribe", users(everything, nothing), "no right to subscribe", nats.ErrPermissionViolation},
		{"to publish to one", users(`{allow: "carillon.>", deny: SUBJECT}`, everything), "no right to publish", nats.ErrPermissionViolation},
		{"to connect", `authorization { users = [ {user: other, password: other} ] }`, "refuses the credentials", nats.ErrAuthorization},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startServer(t, users(everything, everything))
			var eps []*providertest.Endpoint
			for range 2 {
				eps = append(eps, providertest.Start(t, newProvider(t, Config{URLs: []string{s.url()}, User: "app", Password: password})))
			}
			providertest.Introduce(eps...)
			p := eps[0].Provider.(*Provider)
			send := func(frame string) error {
				err := p.Send(t.Context(), [][]byte{[]byte(frame)})
				if err == nil {
					err = p.SendTo(t.Context(), eps[1].Stream(), [][]byte{[]byte("one: " + frame)})
				}
				return err
			}
			one := p.site(p.env.Site).to(eps[1].Stream())
			s.reload(strings.ReplaceAll(tt.without, "SUBJECT", strconv.Quote(one)))
			var err error
			eventually(t, "Send fails", func() bool { err = send("lost"); return err != nil && strings.Contains(err.Error(), tt.want) })
			t.Log(err)
			if !errors.Is(err, tt.is) || strings.Contains(err.Error(), password) {
				t.Errorf("Send: %v; want an error that wraps %v", err, tt.is)
			}
			before := eps[0].Reconnects()
			s.reload(users(everything, everything))
			eventually(t, "Send succeeds again, both ways", func() bool {
				return send("found") == nil && eps[1].Provider.Send(t.Context(), [][]byte{[]byte("back")}) == nil &&
					eps[1].Heard([]byte("one: found"), 10*time.Millisecond) && eps[0].Heard([]byte("back"), 10*time.Millisecond)
			})
			if eps[0].Reconnects() == before {
				t.Error("frames were lost meanwhile, and Reconnected was not called")
			}
		})
	}
}

// nats.go closes a connection for good when it does not know what the server complains about.
func TestProvider_OutlivesAConnectionThatNATSGoGivesUp(t *testing.T) {
	s := startServer(t, "")
	r := providertest.NewRelay(t, s.address)
	one := providertest.Start(t, newProvider(t, Config{URLs: []string{"nats://" + r.Addr()}}))
	two := providertest.Start(t, newProvider(t, Config{URLs: []string{s.url()}}))
	providertest.Introduce(one, two)
	p := one.Provider.(*Provider)
	for round := range 3 {
		there, back := fmt.Appendf(nil, "there %d", round), fmt.Appendf(nil, "back %d", round)
		alone := fmt.Appendf(nil, "back to one %d", round)
		before, gone := one.Reconnects(), p.conn.Load()
		r.Say("-ERR 'Something New'\r\n")
		eventually(t, "there is another connection", func() bool { return one.Reconnects() > before })
		if p.conn.Load() == gone {
			t.Fatal("nats.go did not give the connection up")
		}
		if err := p.Send(t.Context(), [][]byte{there}); err != nil {
			t.Fatal(err)
		}
		if !two.Heard(there, 10*time.Second) {
			t.Error("nobody hears it")
		}
		if err := two.Provider.Send(t.Context(), [][]byte{back}); err != nil {
			t.Fatal(err)
		}
		if err := two.Provider.(*Provider).SendTo(t.Context(), one.Stream(), [][]byte{alone}); err != nil {
			t.Fatal(err)
		}
		if !one.Heard(back, 10*time.Second) || !one.Heard(alone, 10*time.Second) {
			t.Error("it hears nobody")
		}
	}
	// Not even when no server is there for a while.
	s.kill()
	r.Say("-ERR 'Something New'\r\n")
	eventually(t, "Send fails", func() bool { return p.Send(t.Context(), [][]byte{[]byte("lost")}) != nil })
	s.start()
	eventually(t, "it is heard again", func() bool {
		return p.Send(t.Context(), [][]byte{[]byte("again")}) == nil && two.Heard([]byte("again"), 10*time.Millisecond)
	})
}

func FuzzViolated(f *testing.F) {
	f.Add(`nats: permissions violation: Permissions Violation for Publish to "carillon.x.all"`)
	f.Add(`nats: permissions violation: Permissions Violation for Subscription to "a" using queue "b"`)
	f.Fuzz(func(t *testing.T, text string) {
		subject, subscribing := violated(errors.New(text))
		if !strings.Contains(text, subject) || subject == "" && subscribing && !strings.Contains(text, `""`) {
			t.Errorf("violated(%q) = %q, %v", text, subject, subscribing)
		}
	})
}

// Whatever is written as URLs: what may be a password is in no error and in no text.
func FuzzServers(f *testing.F) {
	f.Add("nats://app:open-sesame@10.0.0.7:4222,tls://b@c")
	f.Add("nats://app:%zz@host")
	f.Add("://a:b@c")
	f.Fuzz(func(t *testing.T, before string) {
		const secret = "Gh7-secret-q"
		for _, text := range []string{"nats://app:" + secret + before, secret + "@" + before, before + secret + "@host", "nats://" + before + ":" + secret + "@host"} {
			cfg := Config{URLs: []string{text}}
			servers, err := cfg.servers()
			if err != nil {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("servers of %q: %v", text, err)
				}
				continue
			}
			shown := show(servers)
			for _, u := range servers {
				if u.User != nil && strings.Contains(u.User.String(), secret) {
					continue
				}
				return // it did not come to stand before an @, so it is a name or a path
			}
			if strings.Contains(shown, secret) {
				t.Errorf("%q is shown as %q", text, shown)
			}
		}
	})
}

func TestConfig_ShowsNoSecret(t *testing.T) {
	cfg := Config{URLs: []string{"nats://app:" + password + "@10.0.0.7:4222, " + password + "@10.0.0.8"}}
	other := Config{User: "app", Password: password}
	third := Config{Token: password}
	var log strings.Builder
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	for _, c := range []Config{cfg, other, third} {
		p := newProvider(t, c)
		shown := fmt.Sprintf("%v %+v %#v %s %q %x %v %+v %#v", c, c, c, c, c, c, &c, struct{ C Config }{c}, struct{ C *Config }{&c})
		shown += fmt.Sprintf("%v %+v %#v", p, p, p)
		logger.Info("config", "c", c, "p", p)
		if shown += log.String(); strings.Contains(shown, password) || strings.Contains(shown, fmt.Sprintf("%x", password)) {
			t.Errorf("the password is in %s", shown)
		}
		p.Close()
	}
	if !strings.Contains(cfg.String(), "10.0.0.7:4222") {
		t.Errorf("String() = %q; want the servers", cfg.String())
	}
}

func TestNew_NamesTheFieldThatIsWrong(t *testing.T) {
	conn := new(nats.Conn)
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{URLs: []string{"nats://app:" + password + "%zz@host"}}, "URLs number 1"},
		{Config{URLs: []string{"http://app:" + password + "@host"}}, `scheme "http"`},
		{Config{URLs: make([]string, 0), User: "a", Token: password}, "several kinds of credentials"},
		{Config{NKeyFile: "/nonexistent.nk"}, "NKeyFile"},
		{Config{Prefix: "a.*"}, "Prefix"},
		{Config{Prefix: "a..b"}, "Prefix"},
		{Config{Prefix: strings.Repeat("a", 129)}, "Prefix"},
		{Config{MaxFrameBytes: 511}, "MaxFrameBytes"},
		{Config{MaxFrameBytes: 1<<20 + 1}, "MaxFrameBytes"},
		{Config{ReceiveBytes: 1000}, "ReceiveBytes"},
		{Config{Conn: conn, URLs: []string{"nats://host"}}, "Conn"},
		{Config{Conn: conn, Token: password}, "Conn"},
	} {
		_, err := New(tt.cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), password) {
			t.Errorf("New for %q: %v; want an error about it, without the password", tt.want, err)
		}
	}
}
