package rabbitbus

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

const secret = "Xyzzy-4711"

// refusal starts an instance that must not start, and checks that the error says why, what to do, and no secret.
func refusal(t *testing.T, cfg Config, want ...string) {
	t.Helper()
	p := newTest(t, cfg)
	e := providertest.NewEndpoint(t, p, provider.Env{})
	err := e.Start(t.Context())
	if err == nil {
		t.Fatalf("it started; want an error with %q", want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v; want it to say %q", err, w)
		}
	}
	providertest.CheckNoSecret(t, secret, err, cfg, p)
}

// Each right that is missing is an error of Start with the command that grants it, and with what the documentation says is enough an instance works. One
// that is taken away later is an error of Send, until it is back.
func TestRights(t *testing.T) {
	s := theBroker(t)
	prefix := newPrefix()
	all := `^` + prefix + `\.`
	s.control(t, "eval", fmt.Sprintf(`
		[begin
			rabbit_auth_backend_internal:add_user(U, <<"%s">>, <<"test">>),
			rabbit_auth_backend_internal:set_permissions(U, <<"/">>, C, W, R, <<"test">>)
		end || {U, C, W, R} <- [
			{<<"app">>, <<"%[2]s">>, <<"%[2]s">>, <<"%[2]s">>},
			{<<"no-configure">>, <<"^$">>, <<"%[2]s">>, <<"%[2]s">>},
			{<<"no-write">>, <<"%[2]s">>, <<"^%[3]s[.][^.]*[.]">>, <<"%[2]s">>},
			{<<"no-read">>, <<"%[2]s">>, <<"%[2]s">>, <<"^$">>}]].`, secret, strings.ReplaceAll(all, `\`, `\\`), prefix))
	t.Cleanup(func() {
		s.control(t, "eval", `[rabbit_auth_backend_internal:delete_user(U, <<"test">>) || U <- [<<"app">>, <<"no-configure">>, <<"no-write">>, <<"no-read">>]].`)
	})
	cfg := func(user, password, vhost string) Config {
		return Config{URLs: []string{"amqp://" + user + ":" + password + "@" + s.address + vhost}, Prefix: prefix}
	}
	grants := `rabbitmqctl set_permissions -p '/'`
	refusal(t, cfg("no-configure", secret, ""), "lacks a right", grants+` 'no-configure' '`+all+`'`)
	refusal(t, cfg("no-write", secret, ""), "lacks a right", grants)
	refusal(t, cfg("no-read", secret, ""), "lacks a right", grants)
	refusal(t, cfg("app", secret, "/other"), `no virtual host "other"`, "add_vhost")
	refusal(t, cfg("app", secret+"-wrong", ""), `refuses the user "app" or the password`, "correct them")

	if queues := s.control(t, "list_queues", "name"); strings.Contains(queues, prefix+".") {
		t.Errorf("who did not start has left a queue behind: %s", queues)
	}

	a, b := providertest.Start(t, newTest(t, cfg("app", secret, ""))), providertest.Start(t, newTest(t, cfg("app", secret, "")))
	providertest.Introduce(a, b)
	hears(t, a, b, "with the rights of the documentation")

	s.control(t, "clear_permissions", "-p", "/", "app")
	var err error
	if !eventually(func() bool {
		// The server remembers what a channel may until it has been idle for a second.
		idle := time.NewTimer(1500 * time.Millisecond)
		<-idle.C
		err = a.Provider.Send(t.Context(), [][]byte{[]byte("without a right")})
		return err != nil && strings.Contains(err.Error(), "lacks a right")
	}) {
		t.Errorf("Send without a right: %v", err)
	}
	if err != nil && !strings.Contains(err.Error(), grants+" 'app'") {
		t.Errorf("%v; want the command that grants it", err)
	}
	providertest.CheckNoSecret(t, secret, err)
	s.control(t, "set_permissions", "-p", "/", "app", all, all, all)
	hears(t, a, b, "with the rights again")
}

// While the server is short of memory Send says so instead of waiting. Who starts meanwhile can receive, and all goes on by itself.
func TestAlarm(t *testing.T) {
	s := theBroker(t)
	_, a, b := pair(t, s, Config{})
	hears(t, a, b, "at first")
	s.control(t, "set_vm_memory_high_watermark", "absolute", "1")
	calm := func() { s.control(t, "set_vm_memory_high_watermark", "0.4") }
	alarmed := true
	defer func() {
		if alarmed {
			calm()
		}
	}()
	takesNothing := func(e *providertest.Endpoint) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var err error
		if !eventually(func() bool {
			err = e.Provider.Send(ctx, [][]byte{[]byte("while it is short of memory")})
			return err != nil
		}) || !strings.Contains(err.Error(), "low on memory") || !strings.Contains(err.Error(), "vm_memory_high_watermark") {
			t.Fatalf("Send while the server is short of memory: %v", err)
		}
	}
	takesNothing(a)
	late := providertest.Start(t, newTest(t, Config{URLs: []string{s.url()}, Prefix: a.Provider.(*Provider).cfg.Prefix}))
	takesNothing(late)
	closing := providertest.Start(t, newTest(t, Config{URLs: []string{s.url()}, Prefix: a.Provider.(*Provider).cfg.Prefix}))
	queue := queueOf(closing)
	closing.Close()
	if s.has(t, queue) {
		t.Error("the queue is there after Close")
	}
	calm()
	alarmed = false
	hears(t, a, b, "with memory again")
	hears(t, a, late, "with memory again, to the one that came meanwhile")
	hears(t, late, a, "with memory again, from the one that came meanwhile")
}

// A server whose limit is lower says so at Start, and not at the first large frame.
func TestMaxMessageSize(t *testing.T) {
	s := theBroker(t)
	s.control(t, "eval", `application:set_env(rabbit, max_message_size, 30000).`)
	defer s.control(t, "eval", `application:set_env(rabbit, max_message_size, 134217728).`)
	refusal(t, Config{URLs: []string{s.url()}, Prefix: newPrefix()}, "max_message_size", "lower MaxFrameBytes")
	providertest.Start(t, newTest(t, Config{URLs: []string{s.url()}, Prefix: newPrefix(), MaxFrameBytes: 30000}))
}

// An exchange of the name that is something else is not used.
func TestExchange_OfAnotherKind(t *testing.T) {
	s := theBroker(t)
	p := newTest(t, Config{URLs: []string{s.url()}, Prefix: newPrefix()})
	e := providertest.NewEndpoint(t, p, provider.Env{})
	if err := s.channel(t).ExchangeDeclare(p.exchange(e.Env().Site), amqp.ExchangeFanout, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := e.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "another Prefix") {
		t.Errorf("Start where somebody has made another exchange: %v", err)
	}
}

func TestStart_SaysWhatIsNoRabbitMQ(t *testing.T) {
	for _, tt := range []struct {
		name, scheme, says, want string
	}{
		{"a web server", "amqp", "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "not AMQP 0-9-1"},
		{"one that hangs up", "amqp", "", "the server closed the connection"},
		{"one without TLS", "amqps", "AMQP\x00\x00\x09\x01", "does not speak TLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			address := serve(t, func(c net.Conn) {
				if tt.says != "" {
					io.ReadFull(c, make([]byte, 8))
				}
				io.WriteString(c, tt.says)
				c.Close()
			})
			refusal(t, Config{URLs: []string{tt.scheme + "://app:" + secret + "@" + address}}, tt.want, address)
		})
	}
	refusal(t, Config{URLs: []string{"amqp://app:" + secret + "@127.0.0.1:1"}}, "nobody listens there", "start the server")
	refusal(t, Config{URLs: []string{"amqp://app:" + secret + "@rabbit.invalid"}}, "rabbit.invalid", "host")
}

// Of several servers one that answers is enough, also when the one in use stops answering.
func TestURLs_AreTriedInTurn(t *testing.T) {
	s := theBroker(t)
	first, second := providertest.NewRelay(t, s.address), providertest.NewRelay(t, s.address)
	first.Cut()
	cfg := Config{URLs: []string{"amqp://127.0.0.1:1, amqp://" + first.Addr(), "amqp://" + second.Addr()}, Prefix: newPrefix()}
	a := providertest.Start(t, newTest(t, cfg))
	b := providertest.Start(t, newTest(t, Config{URLs: []string{s.url()}, Prefix: cfg.Prefix}))
	hears(t, a, b, "at first")
	first.Heal()
	second.Cut()
	hears(t, a, b, "through the other")
	hears(t, b, a, "through the other, and back")
}

// With TLS an instance trusts whom it is told to trust, and nobody else. The server is behind a proxy that has the certificate.
func TestTLS(t *testing.T) {
	s := theBroker(t)
	certificate, pool := authority(t)
	address := serve(t, func(c net.Conn) {
		secure := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}})
		defer secure.Close()
		to, err := net.Dial("tcp", s.address)
		if err != nil {
			return
		}
		defer to.Close()
		go func() {
			io.Copy(to, secure)
			to.Close()
		}()
		io.Copy(secure, to)
	})
	cfg := Config{URLs: []string{"amqps://guest:guest@" + address}, Prefix: newPrefix()}
	refusal(t, cfg, "its certificate is not accepted", "RootCAs")
	cfg.TLS = &tls.Config{RootCAs: pool}
	a, b := providertest.Start(t, newTest(t, cfg)), providertest.Start(t, newTest(t, cfg))
	hears(t, a, b, "over TLS")
	if cfg.TLS.ServerName != "" {
		t.Error("the caller's tls.Config was changed")
	}
}

// serve answers each connection until the test ends, and returns its address.
func serve(t *testing.T, answer func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answer(c)
		}
	}()
	return l.Addr().String()
}

// authority makes a certificate for 127.0.0.1, and what to trust it by.
func authority(t *testing.T) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestExplain_IsOneLine(t *testing.T) {
	_, servers, err := Config{URLs: []string{"amqp://app:" + secret + "@10.0.0.7/v"}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		&amqp.Error{Code: amqp.ConnectionForced, Reason: "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'\nand more", Server: true},
		&amqp.Error{Code: amqp.NotAllowed, Reason: "NOT_ALLOWED - access to vhost 'v' refused for user 'app': connection limit (1) is reached", Server: true},
		&amqp.Error{Code: amqp.PreconditionFailed, Reason: "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms", Server: true},
		&amqp.Error{Code: amqp.FrameError, Reason: "read tcp 1->2: i/o timeout"},
		amqp.ErrVhost, context.DeadlineExceeded, errQueueGone, io.ErrUnexpectedEOF,
	} {
		line := explain(staying, servers[0], "carillon", err)
		if s := line.Error(); strings.Contains(s, "\n") || !strings.HasPrefix(s, "rabbit: stay connected to amqp://10.0.0.7:5672/v: ") || !strings.Contains(s, "; ") {
			t.Errorf("%q: want one line with a remedy", s)
		}
		providertest.CheckNoSecret(t, secret, line)
	}
}
