package rabbitbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/carillon-go/carillon/provider/uplink"
)

// What was being done when something went wrong.
const (
	connecting  = "connect to"
	subscribing = "subscribe at"
	publishing  = "publish at"
	staying     = "stay connected to"
)

var errQueueGone = errors.New("somebody deleted the queue of this instance")

// explain says what went wrong at a server and what to do about it. It repeats nothing that may hold a secret.
func explain(doing string, s *server, prefix string, err error) error {
	if t, ok := errors.AsType[*uplink.Trouble](err); ok {
		return t
	}
	what, remedy := diagnose(s, prefix, err)
	if remedy == "" { // the connection was closed without a word
		remedy = "is the server up, and the network to it? " + triedAgain
		if doing == connecting {
			remedy = "see its log: it stops, has no room for connections, wants TLS there (amqps://), or is no RabbitMQ"
		}
	}
	return uplink.NewTrouble(fmt.Sprintf("rabbit: %s %s: %s; %s", doing, s, what, remedy), err)
}

const triedAgain = "it is tried again while the instance runs"

// diagnose returns what err means and what to do, which is empty where the connection was closed without a word.
func diagnose(s *server, prefix string, err error) (what, remedy string) {
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return diagnoseAMQP(s, prefix, e)
	}
	unknown, isDNS := errors.AsType[*net.DNSError](err)
	_, isNoTLS := errors.AsType[tls.RecordHeaderError](err)
	certificate, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, errQueueGone):
		return err.Error(), "it is made anew; if that goes on, see who deletes queues there"
	case isDNS && unknown.IsNotFound:
		return fmt.Sprintf("the host %q is not known", unknown.Name), "correct the host in URLs, or the name server"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens there", "start the server, or correct host and port in URLs"
	case isNoTLS:
		return "it does not speak TLS there", "use amqp:// instead of amqps://, or the port for TLS, 5671"
	case isCertificate:
		return "its certificate is not accepted: " + uplink.FirstLine(certificate.Error()), "make this system trust who signed it (SSL_CERT_FILE), or correct the host in URLs to a name that is in it; in code, TLS may have RootCAs or ServerName"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), isNet && timeout.Timeout():
		return "no answer in time", "is the server up, is the network to it open, and does it speak AMQP 0-9-1 there?"
	case errors.Is(err, net.ErrClosed), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the server closed the connection", ""
	}
	return uplink.FirstLine(err.Error()), triedAgain
}

// diagnoseAMQP explains what the server answered, or what the client library made of its end.
func diagnoseAMQP(s *server, prefix string, e *amqp.Error) (what, remedy string) {
	said := uplink.FirstLine(e.Reason)
	has := func(part string) bool { return strings.Contains(e.Reason, part) }
	pattern := "'^" + strings.ReplaceAll(prefix, ".", `\.`) + `\.'`
	grant := fmt.Sprintf("grant what is missing: rabbitmqctl set_permissions -p '%s' '%s' %s %s %s", s.vhost, s.user, pattern, pattern, pattern)
	switch {
	case errors.Is(e, amqp.ErrCredentials):
		return fmt.Sprintf("it refuses the user %q or the password", s.user), "correct them in URLs, special characters percent-encoded; guest may come from the server's own machine only"
	case e.Code == amqp.AccessRefused && has("exclusive"):
		return "another connection has the queue of this instance", "another one is made"
	case e.Code == amqp.AccessRefused && e.Server, e.Code == amqp.NotAllowed && has("refused for user") && !has("limit"):
		return "the user lacks a right: " + said, grant
	case e.Code == amqp.NotAllowed && has("not found"):
		return fmt.Sprintf("it has no virtual host %q", s.vhost), "correct what follows host and port in URLs, or make it: rabbitmqctl add_vhost"
	case has("limit"):
		return "a limit is reached: " + said, "raise it, or use less elsewhere"
	case has("larger than configured max size"):
		return "its max_message_size is less than MaxFrameBytes: " + said, "lower MaxFrameBytes, on all instances or on this one, or raise max_message_size"
	case has("inequivalent arg"):
		return "somebody has made something else of this name: " + said, "delete that, or use another Prefix"
	case e.Code == amqp.ConnectionForced:
		return "it ended the connection: " + said, triedAgain
	case has("timed out") && has("acknowledgement"):
		return "frames were not acknowledged in time: " + said, "raise its consumer_timeout; " + triedAgain
	case !e.Server && has("i/o timeout"):
		return "it has been silent for too long", "is the network to it open? " + triedAgain
	case e == amqp.ErrVhost, !e.Server && e.Code == amqp.FrameError && !has("EOF") && !has("connection reset") && !has("broken pipe") && !has("closed network"):
		return "what it says is not AMQP 0-9-1: " + said, "correct host and port in URLs; for TLS it is amqps://"
	case !e.Server:
		return "the server closed the connection", ""
	}
	return said, "see the log of the server"
}
