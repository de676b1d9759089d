package kafkabus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// because returns err, or what is behind it if it says only that time has run out.
func (l *link) because(err error) error {
	if d := l.dialed.Load(); d != nil && isContext(err) {
		return fmt.Errorf("%w (%w)", d.err, err)
	}
	return err
}

func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// who names the user for whom rights are to be set.
func (s *settings) who() string {
	if s.user == "" {
		return "the user of this connection"
	}
	return fmt.Sprintf("user %q", s.user)
}

// explain says in one line what went wrong and what to do about it. Nothing in it is secret: neither franz-go nor the brokers repeat a password.
func (s *settings) explain(doing string, err error) error {
	hint := s.hint(err)
	if text := err.Error(); strings.ContainsAny(text, "\r\n") {
		return fmt.Errorf("kafka: %s: %s%s", doing, strings.Join(strings.Fields(text), " "), hint)
	}
	return fmt.Errorf("kafka: %s: %w%s", doing, err, hint)
}

// hint returns what to do about an error.
func (s *settings) hint(err error) string {
	dns, isDNS := errors.AsType[*net.DNSError](err)
	dial, isDial := errors.AsType[*net.OpError](err)
	_, isUnknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, isName := errors.AsType[x509.HostnameError](err)
	_, isRecord := errors.AsType[tls.RecordHeaderError](err)
	_, isEOF := errors.AsType[*kgo.ErrFirstReadEOF](err)
	text := err.Error()
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return "; check User, Password and Mechanism"
	case errors.Is(err, kerr.UnsupportedSaslMechanism), strings.Contains(text, "none of our mechanisms"):
		return "; the brokers want another Mechanism than " + s.mechanism
	case errors.Is(err, kerr.IllegalSaslState):
		return "; the brokers want no credentials there, or others: check User and the port in Brokers"
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return s.rights()
	case errors.Is(err, kerr.ClusterAuthorizationFailed): // who may write to no topic at all hears this, too
		return s.rights() + "; brokers before 3.0 want IdempotentWrite on the cluster as well"
	case errors.Is(err, kerr.OffsetOutOfRange):
		return "; what was to be read next is not kept any more (retention.ms of the topic): longer outages need a longer one"
	case isUnknown:
		return "; make this system trust who signed the brokers' certificates (SSL_CERT_FILE), or in code set TLS with RootCAs"
	case isName:
		return "; the brokers advertise another name than their certificate has; in code, TLS.ServerName may say which"
	case isRecord, strings.Contains(text, "first record does not look like a TLS handshake"):
		return "; the brokers speak no TLS there: switch TLS off, or take their other port"
	case s.tls && (isEOF || errors.Is(err, io.EOF)):
		return "; do the brokers speak TLS there? Otherwise check User, Password and Mechanism"
	case strings.Contains(text, "tls alert"), isEOF && s.mechanism == "":
		return "; if the brokers want TLS there, switch TLS on; if they want credentials, set User and Password"
	case s.mechanism != "" && (isEOF || errors.Is(err, io.EOF)):
		return "; a broker closed the connection: check User, Password and Mechanism, and whether it wants TLS, or no credentials"
	case strings.Contains(text, "invalid large response"):
		return "; that is no Kafka broker: check host and port in Brokers"
	case isDNS && dns.IsNotFound:
		return s.unreached(dns.Name, "; check the hosts' names in Brokers")
	case isDial && dial.Op == "dial" && dial.Addr != nil:
		return s.unreached(dial.Addr.String(), "; is it running, and are hosts and ports in Brokers right?")
	case isContext(err), isDial && dial.Timeout():
		return "; is that a Kafka broker, and does no firewall stand between?"
	}
	return ""
}

// rights says which are needed.
func (s *settings) rights() string {
	return fmt.Sprintf("; allow Describe, Read and Write to %s on topics with the prefix %s- (kafka-acls --resource-pattern-type prefixed)", s.who(), s.prefix)
}

// unreached returns known for an address, or a host, that is in Brokers or may be one of them, and otherwise where it comes from.
func (s *settings) unreached(address, known string) string {
	if slices.ContainsFunc(s.known, func(b string) bool {
		return b == address || strings.HasPrefix(b, address+":") || numeric(address) && !numeric(b)
	}) {
		return known
	}
	return "; a broker says that it is to be reached there (advertised.listeners), and it is not: check that, or is it down?"
}

// numeric reports whether an address has no name that would have to be looked up.
func numeric(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && net.ParseIP(host) != nil
}
