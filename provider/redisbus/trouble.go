package redisbus

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

	"github.com/redis/rueidis"

	"github.com/carillon-go/carillon/provider/uplink"
)

// What was being done when something went wrong.
const (
	connecting  = "connect to"
	subscribing = "subscribe at"
	publishing  = "publish at"
	staying     = "stay connected to"
)

// explain says what went wrong at a server and what to do about it. It repeats nothing that may hold a secret.
func explain(doing, server, prefix string, err error) error {
	if err == nil {
		err = io.EOF
	}
	what, remedy := diagnose(prefix, err)
	if remedy == "" { // the server closed the connection
		remedy = "see its log: it stopped, has no room (maxclients), is in protected mode, or wants TLS (rediss://)"
		if doing == staying {
			remedy = "see its log: it stopped, the user lost a right, or this instance fell behind more than client-output-buffer-limit pubsub allows"
		}
	}
	return uplink.NewTrouble(fmt.Sprintf("redis: %s %s: %s; %s", doing, server, what, remedy), err)
}

// diagnose returns what err means and what to do, which is empty where the server closed the connection.
func diagnose(prefix string, err error) (what, remedy string) {
	if re, ok := rueidis.IsRedisErr(err); ok {
		return diagnoseAnswer(prefix, re.Error())
	}
	var unknown *net.DNSError
	var noTLS tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unknown) && unknown.IsNotFound:
		return fmt.Sprintf("the host %q is not known", unknown.Name), "correct the host in the URL, or the name server"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens there", "start the server, or correct host and port in the URL"
	case errors.As(err, &noTLS):
		return "it does not speak TLS there", "use redis:// instead of rediss://, or the port for TLS"
	case errors.As(err, &certificate):
		return "its certificate is not accepted: " + uplink.FirstLine(certificate.Error()), "make this system trust who signed it, or bring a client with a TLS configuration"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the server closed the connection", ""
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return "no answer in time", "is the server up, is the network to it open, and does it speak TLS there if the URL begins with rediss://?"
	}
	return uplink.FirstLine(err.Error()), "it is tried again while the instance runs"
}

// diagnoseAnswer explains an error that the server itself answered with.
func diagnoseAnswer(prefix, answer string) (what, remedy string) {
	code, _, _ := strings.Cut(answer, " ")
	switch code {
	case "WRONGPASS":
		return "user name or password is wrong", "correct them in the URL, special characters percent-encoded"
	case "NOAUTH":
		return "it wants a password", "put it into the URL: redis://user:password@host, or redis://:password@host"
	case "NOPERM":
		return "the user lacks a right (" + uplink.FirstLine(answer) + ")", fmt.Sprintf("grant it: ACL SETUSER name +publish +subscribe +ping &%s:*, and with Keep +xadd +xread +xrevrange +expire ~%[1]s:*", prefix)
	case "LOADING":
		return "it is still loading its data", "wait until it has"
	case "OOM":
		return "it has no memory left for what is to be kept", "raise its maxmemory, or lower Keep"
	case "READONLY":
		return "it is a read-only replica", "give the primary's address, or those of its Sentinels and ?master_set=NAME"
	case "DENIED":
		return "it is in protected mode and lets only its own machine in", "give it a password, or bind it to an address"
	}
	if strings.Contains(answer, "max number of clients") {
		return "it has no room for another connection", "raise its maxclients"
	}
	return uplink.FirstLine(answer), "see the log of the server"
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
