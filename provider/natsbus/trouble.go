package natsbus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/nats-io/nats.go"
)

// A trouble is why nothing can be sent just now. A new one is made whenever it begins anew.
type trouble struct {
	err     error
	refused string // subject that may not be used; or empty
	deaf    bool   // what may not be done is to subscribe
}

var errLost = errors.New("nats: the connection is lost; trying to get another")

// fail makes Send return err until the goroutine of watch has found that all is well.
func (p *Provider) fail(err error) *trouble {
	t := &trouble{err: err}
	p.trouble.Store(t)
	p.poke()
	return t
}

// heard is told what the server or the client complains about. It is called by one goroutine of nats.go.
func (p *Provider) heard(_ *nats.Conn, _ *nats.Subscription, err error) {
	switch {
	case errors.Is(err, nats.ErrSlowConsumer):
		p.inbox.overflow()
	case errors.Is(err, nats.ErrPermissionViolation):
		subject, deaf := violated(err)
		if p.brought != nil && !strings.HasPrefix(subject, p.cfg.prefix+".") {
			return // another user of the application's connection
		}
		p.trouble.Store(&trouble{err: explain(err), refused: subject, deaf: deaf})
		p.poke()
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		p.fail(p.unreachable(err))
	}
}

var violation = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]*)"`)

// violated returns what a violation of permissions is about.
func violated(err error) (subject string, subscribing bool) {
	m := violation.FindStringSubmatch(err.Error())
	if m == nil {
		return "", false
	}
	return m[2], strings.EqualFold(m[1], "subscription")
}

// unreachable says why there is no connection, and what to do about it. Nothing in it is secret: nats.go and the server
// repeat no credentials, and servers is shown without them.
func (p *Provider) unreachable(err error) error { return unreachable(p.cfg.servers, err) }

func unreachable(servers string, err error) error {
	hint := ""
	dns, isDNS := errors.AsType[*net.DNSError](err)
	_, isUnknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, isName := errors.AsType[x509.HostnameError](err)
	_, isRecord := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case errors.Is(err, nats.ErrAuthorization):
		return fmt.Errorf("nats: %s refuses the credentials, or wants some: %w; check User and Password, Token, CredentialsFile or NKeyFile against the server's configuration", servers, err)
	case errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAccountAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		return fmt.Errorf("nats: %s takes these credentials no longer: %w; renew the file of CredentialsFile", servers, err)
	case isDNS && dns.IsNotFound:
		hint = "; check the host's name in URLs"
	case isUnknown:
		hint = "; make this system trust who signed the server's certificate (SSL_CERT_FILE), or in code set TLS with RootCAs"
	case isName:
		hint = "; use a name in URLs that is in the server's certificate, or in code set TLS.ServerName"
	case isRecord, errors.Is(err, nats.ErrSecureConnWanted):
		hint = "; the server speaks no TLS there: write nats://, and in code leave TLS nil, or switch TLS on at the server"
	case errors.Is(err, nats.ErrSecureConnRequired):
		hint = "; the server wants TLS: write tls:// in URLs"
	case strings.Contains(err.Error(), "refused"), errors.Is(err, nats.ErrNoServers):
		hint = "; is the server running, and are host and port in URLs right?"
	}
	return fmt.Errorf("nats: cannot connect to %s: %w%s", servers, err, hint)
}

// explain says what to do about a violation of permissions.
func explain(err error) error {
	subject, deaf := violated(err)
	verb := "publish"
	if deaf {
		verb = "subscribe"
	}
	return fmt.Errorf("nats: no right to %s to %s: allow it to this user in the server's configuration (%w)", verb, subject, nats.ErrPermissionViolation)
}

func payloadError(limit int64, want int) error {
	return fmt.Errorf("nats: the server takes messages of %d bytes at most (max_payload), less than MaxFrameBytes, which is %d; lower MaxFrameBytes, on all instances or on this one, or raise max_payload", limit, want)
}

// probe asks for the rights to publish, to refused as well if that is a subject: with messages that are empty, which no frame is, and which everybody ignores. The
// answer comes before that of the next flush.
func (p *Provider) probe(refused string) error {
	own := p.site(p.env.Site)
	subjects := []string{own.all(), own.root + ".to.nobody"}
	if refused != "" {
		subjects = append(subjects, refused)
	}
	for _, subject := range subjects {
		if err := p.conn.Load().Publish(subject, nil); err != nil {
			return fmt.Errorf("nats: publish: %w", err)
		}
	}
	return nil
}

// mend tries to end t, and reports whether it did. It waits for the server.
func (p *Provider) mend(ctx context.Context, t *trouble) bool {
	c := p.conn.Load()
	if limit := c.MaxPayload(); limit < int64(p.cfg.maxFrameBytes) {
		p.fail(payloadError(limit, p.cfg.maxFrameBytes))
		return false
	}
	before := c.LastError()
	if t.deaf {
		if err := p.listenAgain(); err != nil {
			return false
		}
	}
	refused := t.refused
	if t.deaf {
		refused = ""
	}
	if err := p.probe(refused); err != nil {
		return false
	}
	if err := p.settled(ctx, before); err != nil {
		return false
	}
	return p.trouble.CompareAndSwap(t, nil)
}
