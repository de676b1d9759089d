package kafkabus

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
)

// may lists rights on all topics of Carillon.
func may(operations ...kmsg.ACLOperation) (all []kfake.ACL) {
	for _, o := range operations {
		all = append(all, kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: "carillon-", Pattern: kmsg.ACLResourcePatternTypePrefixed, Operation: o, Allow: true})
	}
	return all
}

var (
	describe = kmsg.ACLOperationDescribe
	read     = kmsg.ACLOperationRead
	write    = kmsg.ACLOperationWrite
	create   = kmsg.ACLOperationCreate
)

// startGuarded starts brokers that want credentials: of the operator, and of the user "app" with the rights given.
func startGuarded(tb testing.TB, mechanism string, rights ...kfake.ACL) *kfake.Cluster {
	tb.Helper()
	return startCluster(tb, 1, kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser(Plain, "operator", "operator"), kfake.User(mechanism, "app", password, rights...))
}

func operator(tb testing.TB, c *kfake.Cluster) *kgo.Client {
	return stranger(tb, c.ListenAddrs(), kgo.SASL(plain.Auth{User: "operator", Pass: "operator"}.AsMechanism()))
}

func TestStart_EveryMechanism(t *testing.T) {
	for _, mechanism := range []string{Plain, ScramSHA256, ScramSHA512} {
		t.Run(mechanism, func(t *testing.T) {
			c := startGuarded(t, mechanism, may(describe, read, write, create)...)
			cfg := Config{Brokers: c.ListenAddrs(), User: "app", Password: password, Mechanism: mechanism}
			a, b := pair(t, cfg, cfg)
			hears(t, a, b, "with "+mechanism)
		})
	}
}

func TestStart_SaysWhatIsWrongInOneLineWithoutSecrets(t *testing.T) {
	guarded := startGuarded(t, ScramSHA512, may(describe, read, write, create)...)
	open := startCluster(t, 1)
	certificate := httptest.NewUnstartedServer(nil)
	certificate.StartTLS()
	defer certificate.Close()
	secure := startCluster(t, 1, kfake.TLS(&tls.Config{Certificates: certificate.TLS.Certificates}))
	mute, muteToo := startGuarded(t, ScramSHA512, may(describe, read, create)...), startGuarded(t, ScramSHA512, may(describe, write, create)...)
	blind, poor := startGuarded(t, ScramSHA512), startGuarded(t, ScramSHA512, may(describe, read, write)...)
	in := func(c *kfake.Cluster, cfg Config) Config {
		cfg.Brokers = c.ListenAddrs()
		return cfg
	}
	app := Config{User: "app", Password: password}
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // what to do about it
	}{
		{"wrong password", in(guarded, Config{User: "app", Password: "wrong-" + password}), "check User, Password and Mechanism"},
		{"wrong password over TLS", Config{Brokers: []string{answering(t, "")}, User: "app", Password: "wrong-" + password, TLS: &tls.Config{}}, "check User, Password and Mechanism"},
		{"wrong user", in(guarded, Config{User: "nobody", Password: password}), "check User, Password and Mechanism"},
		{"no credentials", in(guarded, Config{}), "User and Password"},
		{"another mechanism", in(guarded, Config{User: "app", Password: password, Mechanism: ScramSHA256}), "Mechanism"},
		{"credentials that nobody wants", in(open, app), "wants TLS, or no credentials"},
		{"no right to write", in(mute, app), `allow Describe, Read and Write to user "app" on topics with the prefix carillon-`},
		{"no right to read", in(muteToo, app), `allow Describe, Read and Write to user "app" on topics with the prefix carillon-`},
		{"no right to anything", in(blind, app), `user "app"`},
		{"no right to create", in(poor, app), `user "app" may not create it`},
		{"nobody listens", Config{Brokers: []string{"127.0.0.1:1"}, User: "app", Password: password}, "is it running"},
		{"a web server", Config{Brokers: []string{answering(t, "HTTP/1.1 400 Bad Request\r\n\r\n")}, User: "app", Password: password}, "that is no Kafka broker"},
		{"TLS with a broker that has none", Config{Brokers: []string{answering(t, "")}, TLS: &tls.Config{}}, "do the brokers speak TLS there?"},
		{"TLS with a server that speaks another protocol", Config{Brokers: []string{answering(t, "-ERR unknown\r\n")}, TLS: &tls.Config{}}, "the brokers speak no TLS there"},
		{"no TLS with a broker that has it", in(secure, Config{}), "switch TLS on"},
		{"a certificate of nobody's", in(secure, Config{TLS: &tls.Config{}}), "SSL_CERT_FILE"},
		{"a certificate of somebody else", in(secure, Config{TLS: &tls.Config{RootCAs: roots(certificate), ServerName: "other.example.org"}}), "ServerName"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newTest(t, tt.cfg)
			e := providertest.NewEndpoint(t, p, provider.Env{})
			defer e.Close()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := e.Start(ctx)
			if err == nil {
				t.Fatal("Start returned nil")
			}
			t.Log(err)
			if text := err.Error(); !strings.Contains(text, tt.want) || !strings.HasPrefix(text, "kafka: ") {
				t.Errorf("Start: %q; want it to say %q", text, tt.want)
			}
			providertest.CheckNoSecret(t, password, err, p)
		})
	}
	cfg := in(secure, Config{TLS: &tls.Config{RootCAs: roots(certificate), ServerName: "example.com"}})
	a, b := pair(t, cfg, cfg)
	hears(t, a, b, "over TLS")
}

// answering starts a server that answers whatever comes with a text and closes the connection, as many do that hear another protocol than
// their own. It returns its address.
func answering(tb testing.TB, text string) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 4096))
			conn.Write([]byte(text))
			conn.Close()
		}
	})
	tb.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

func TestHint_SaysWhatToDo(t *testing.T) {
	p := newTest(t, Config{User: "app", Password: password})
	for _, tt := range []struct {
		err  error
		want string
	}{
		{kerr.SaslAuthenticationFailed, "check User, Password and Mechanism"},
		{kerr.UnsupportedSaslMechanism, "another Mechanism than SCRAM-SHA-512"},
		{kerr.IllegalSaslState, "want no credentials there"},
		{kerr.OffsetOutOfRange, "retention.ms"},
		{context.DeadlineExceeded, "firewall"},
		{&net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}, "firewall"},
		{errors.New("several\nlines"), "several lines"},
	} {
		if err := p.cfg.explain("ask", tt.err); !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v; want it to say %q, in one line", err, tt.want)
		}
	}
}

func TestHint_NamesAnAddressThatABrokerAdvertises(t *testing.T) {
	p := newTest(t, Config{Brokers: []string{"10.0.0.7:9092"}})
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"one in Brokers", &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 7), Port: 9092}, Err: errors.New("refused")}, "in Brokers right"},
		{"one that is not", &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 8), Port: 9092}, Err: errors.New("refused")}, "advertised.listeners"},
		{"a name that is not known", &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "kafka-0.internal", IsNotFound: true}}, "advertised.listeners"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := p.cfg.explain("ask", tt.err); !strings.Contains(err.Error(), tt.want) || !errors.Is(err, tt.err) {
				t.Errorf("%v; want it to say %q", err, tt.want)
			}
		})
	}
}

// What a failed Start leaves behind is looked at where no other client of franz-go runs, since each makes goroutines all the time.
func TestStart_LeavesNothingWhenItFails(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, address := range map[string]string{"nobody listens": "127.0.0.1:1", "nobody answers": silent.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			e := providertest.NewEndpoint(t, newTest(t, Config{Brokers: []string{address}}), provider.Env{})
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := e.Start(ctx); err == nil {
				t.Error("Start returned nil")
			}
			eventually(t, "no goroutine of franz-go is left", func() bool { return !strings.Contains(stacks(), "franz-go/pkg/kgo.") })
		})
	}
}

// setRight allows an operation on all topics of Carillon, or takes the right away.
func setRight(t *testing.T, c *kfake.Cluster, operation kmsg.ACLOperation, allowed bool) {
	t.Helper()
	if !allowed {
		f := kmsg.NewDeleteACLsRequestFilter()
		f.ResourceType, f.ResourceName, f.ResourcePatternType = kmsg.ACLResourceTypeTopic, kmsg.StringPtr("carillon-"), kmsg.ACLResourcePatternTypePrefixed
		f.Operation, f.PermissionType = operation, kmsg.ACLPermissionTypeAllow
		req := kmsg.NewPtrDeleteACLsRequest()
		req.Filters = append(req.Filters, f)
		answer, err := operator(t, c).Request(t.Context(), req)
		if err != nil || len(answer.(*kmsg.DeleteACLsResponse).Results[0].MatchingACLs) != 1 {
			t.Fatalf("take a right away: %v, %+v", err, answer)
		}
		return
	}
	r := kmsg.NewCreateACLsRequestCreation()
	r.ResourceType, r.ResourceName, r.ResourcePatternType = kmsg.ACLResourceTypeTopic, "carillon-", kmsg.ACLResourcePatternTypePrefixed
	r.Principal, r.Host, r.Operation, r.PermissionType = "User:app", "*", operation, kmsg.ACLPermissionTypeAllow
	req := kmsg.NewPtrCreateACLsRequest()
	req.Creations = append(req.Creations, r)
	answer, err := operator(t, c).Request(t.Context(), req)
	if err != nil || answer.(*kmsg.CreateACLsResponse).Results[0].ErrorCode != 0 {
		t.Fatalf("give a right: %v, %+v", err, answer)
	}
}

func TestSend_FailsWhileARightIsMissingAndNoLonger(t *testing.T) {
	for _, tt := range []struct {
		name  string
		right kmsg.ACLOperation
	}{
		{"to write", write},
		{"to read", read},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := startGuarded(t, ScramSHA512, may(describe, read, write, create)...)
			cfg := Config{Brokers: c.ListenAddrs(), User: "app", Password: password}
			a, b := pair(t, cfg, cfg)
			hears(t, a, b, "at first")
			setRight(t, c, tt.right, false)
			err := refused(t, a, "allow Describe, Read and Write")
			t.Log(err)
			if !errors.Is(err, kerr.TopicAuthorizationFailed) {
				t.Errorf("Send: %v; want an error that wraps TOPIC_AUTHORIZATION_FAILED", err)
			}
			providertest.CheckNoSecret(t, password, err)
			before := a.Reconnects()
			setRight(t, c, tt.right, true)
			hearsAgain(t, a, b, "afterwards")
			hearsAgain(t, b, a, "and back")
			if tt.right == read {
				eventually(t, "Reconnected is called", func() bool { return a.Reconnects() > before })
			}
		})
	}
}

// The password is changed, and the brokers close the connections: nothing goes until it is right again.
func TestSend_FailsWhileTheCredentialsAreRefused(t *testing.T) {
	c := startGuarded(t, ScramSHA512, may(describe, read, write, create)...)
	r := providertest.NewRelay(t, c.ListenAddrs()[0])
	cfg := Config{Brokers: c.ListenAddrs(), User: "app", Password: password, Options: through(r)}
	a, b := pair(t, cfg, cfg)
	hears(t, a, b, "at first")
	fault := c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.SASLAuthenticate}, Err: kerr.SaslAuthenticationFailed, TopLevel: true, Count: -1})
	r.Cut()
	r.Heal()
	err := refused(t, a, "check User, Password and Mechanism")
	t.Log(err)
	if _, ok := a.Provider.(*Provider).keeper.Link(); ok {
		eventually(t, "the link ends", func() bool { _, ok := a.Provider.(*Provider).keeper.Link(); return !ok })
	}
	fault.Remove()
	hearsAgain(t, a, b, "afterwards")
	eventually(t, "Reconnected is called", func() bool { return a.Reconnects() > 0 })
}
