package mqttbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/eclipse/paho.golang/packets"

	"github.com/carillon-go/carillon/provider/uplink"
)

// A refusal is what a server gave as its reason.
type refusal struct {
	code byte
	said string // in its own words; mostly empty
}

func (r *refusal) Error() string {
	if r.said == "" {
		return fmt.Sprintf("reason 0x%02x", r.code)
	}
	return fmt.Sprintf("reason 0x%02x, %q", r.code, uplink.FirstLine(r.said))
}

// What was being done when something went wrong.
const (
	connecting  = "connect to"
	subscribing = "subscribe at"
	publishing  = "publish at"
	staying     = "stay connected to"
)

// What the guard finds.
var (
	errOld     = errors.New("an answer of MQTT 3.1.1")
	errStrange = errors.New("what the server sends is no MQTT, or was not asked for")
)

// trouble says what went wrong at the server and what to do about it.
func (l *link) trouble(doing, what, remedy string, err error) error {
	return uplink.NewTrouble(fmt.Sprintf("mqtt: %s %v: %s; %s", doing, l.server, what, remedy), err)
}

// explain is trouble for an error. It repeats nothing that may hold a secret.
func (l *link) explain(doing string, err error) error {
	var done *uplink.Trouble
	if errors.As(err, &done) {
		return err
	}
	what, remedy := l.diagnose(doing, err)
	return l.trouble(doing, what, remedy, err)
}

// grant says which right is needed.
func (l *link) grant() string { return fmt.Sprintf("readwrite %s/#", l.p.cfg.prefix) }

// diagnose returns what err means and what to do.
func (l *link) diagnose(doing string, err error) (what, remedy string) {
	var said *refusal
	var unknown *net.DNSError
	var noTLS tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	var alert *net.OpError
	switch {
	case errors.As(err, &said):
		return l.diagnoseReason(doing, said)
	case errors.Is(err, errOld):
		return tooOld, upgrade
	case errors.Is(err, errStrange):
		return uplink.FirstLine(err.Error()), "correct host and port in the URL: is it an MQTT server, and one without TLS if the URL begins with mqtt://?"
	case errors.As(err, &unknown) && unknown.IsNotFound:
		return fmt.Sprintf("the host %q is not known", unknown.Name), "correct the host in the URL, or the name server"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens there", "start the server, or correct host and port in the URL"
	case errors.As(err, &noTLS):
		return "it does not speak TLS there", "use mqtt:// instead of mqtts://, or the port for TLS"
	case errors.As(err, &certificate):
		return "its certificate is not accepted: " + uplink.FirstLine(certificate.Error()), "make this system trust who signed it (SSL_CERT_FILE), or in code set TLS"
	case errors.As(err, &alert) && alert.Op == "remote error": // that is how crypto/tls passes on what the other end says
		return "it refuses the TLS connection: " + uplink.FirstLine(alert.Err.Error()), "it may want a certificate of this instance; in code, set TLS with one"
	case errors.Is(err, errUnanswered):
		return fmt.Sprintf("it has not acknowledged a message for %v", answerWithin), "see its log; the connection is made anew"
	case errors.Is(err, errSilent):
		return "nothing comes from it any more", "is it up, and the network to it open?"
	case errors.Is(err, errLost):
		return errLost.Error(), "it is made again"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return "no answer in time", "is the server up, is the network to it open, is it an MQTT server, and does it speak TLS there if and only if the URL begins with mqtts://?"
	case errors.Is(err, context.Canceled):
		return "interrupted", "nothing needs to be done"
	case isClosed(err):
		remedy = "see its log"
		switch {
		case doing == connecting && l.server.tls:
			remedy += ": it may want a certificate of this instance (in code, set TLS), not speak TLS there (mqtt://) or no MQTT 5, or have no room (max_connections)"
		case doing == connecting:
			remedy += ": it may want TLS (mqtts://), speak no MQTT 5, or have no room (max_connections)"
		}
		return "the server closed the connection", remedy
	}
	return uplink.FirstLine(err.Error()), "it is tried again while the instance runs"
}

const (
	tooOld  = "it speaks no MQTT 5, but an older version"
	upgrade = "use a server that does, such as Mosquitto 1.6 or later, or allow version 5 in its settings"
)

// diagnoseReason explains the reasons that MQTT 5 has. What a server says in its own words is added.
func (l *link) diagnoseReason(doing string, r *refusal) (what, remedy string) {
	what, remedy = fmt.Sprintf("reason 0x%02x", r.code), "see the log of the server"
	switch r.code {
	case packets.ConnackUnsupportedProtocolVersion, 1: // 1: as older versions say it
		what, remedy = tooOld, upgrade
	case packets.ConnackInvalidClientID:
		what, remedy = "it refuses the client identifier", `allow those that begin with "carillon"`
	case packets.ConnackBadUsernameOrPassword:
		what, remedy = "user name or password is wrong", "correct them in the URL, special characters percent-encoded"
	case packets.ConnackNotAuthorized:
		what, remedy = "the user lacks a right", "grant it: "+l.grant()
		if doing == connecting {
			what, remedy = "not authorized: user name or password is wrong or missing", "correct them in the URL, mqtt://user:password@host, special characters percent-encoded"
		}
	case packets.ConnackServerUnavailable, packets.ConnackServerBusy, packets.ConnackConnectionRateExceeded, packets.DisconnectMessageRateTooHigh:
		what, remedy = "it has too much to do", "it is tried again while the instance runs"
	case packets.ConnackBanned:
		what, remedy = "this client is banned", "see the settings of the server"
	case packets.DisconnectServerShuttingDown:
		what, remedy = "it shuts down", "it is tried again while the instance runs"
	case packets.DisconnectKeepAliveTimeout:
		what, remedy = "it has heard nothing of this instance for too long", "is the network overloaded, or did the process stand still?"
	case packets.DisconnectSessionTakenOver:
		what, remedy = "another client has come with the same identifier, such as a copy of this process", "a new identifier is taken"
	case packets.PubackTopicNameInvalid, packets.SubackTopicFilterinvalid:
		what, remedy = "it refuses the topic", fmt.Sprintf("allow %s/#, or set another Prefix", l.p.cfg.prefix)
	case packets.DisconnectReceiveMaximumExceeded:
		what, remedy = "it has received more than it wanted at once", "report this"
	case packets.DisconnectPacketTooLarge:
		what, remedy = "it takes no messages of this size", "raise its limit (mosquitto: max_packet_size, message_size_limit), or lower MaxFrameBytes"
	case packets.PubackQuotaExceeded:
		what, remedy = "a quota of the server is exceeded", "raise it, or make room"
	case packets.DisconnectAdministrativeAction:
		what, remedy = "its operator has ended the connection", "it is tried again while the instance runs"
	case packets.ConnackQoSNotSupported:
		what, remedy = "it carries messages with QoS 0 only, which may be lost anywhere", "allow QoS 1 there (mosquitto: max_qos)"
	case packets.ConnackUseAnotherServer, packets.ConnackServerMoved:
		what, remedy = "another server is to be used", "put that one into the URL"
	}
	if r.said != "" {
		what += fmt.Sprintf(" (it says %q)", uplink.FirstLine(r.said))
	}
	return what, remedy
}

// isClosed reports whether err is that of a connection that the other end has closed.
func isClosed(err error) bool {
	for _, closed := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed} {
		if errors.Is(err, closed) {
			return true
		}
	}
	return false
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
