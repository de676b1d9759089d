package azurebus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/carillon-go/carillon/provider/uplink"
)

// Conditions by which the service says what is wrong, beside those of AMQP that go-amqp names.
const (
	condBusy      = amqp.ErrCond("com.microsoft:server-busy")
	condDisabled  = amqp.ErrCond("com.microsoft:entity-disabled")
	condForbidden = amqp.ErrCond("com.microsoft:operation-forbidden")
)

// explain says what went wrong and what to do about it, in one line. What ended because of a ctx, and what is explained already, stays as it is.
func (p *Provider) explain(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*uplink.Trouble](err); ok || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	what, remedy := p.diagnose(err)
	return uplink.NewTrouble(fmt.Sprintf("azure: %s; %s", what, remedy), err)
}

func (p *Provider) diagnose(err error) (what, remedy string) {
	if answer, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return p.diagnoseAnswer(answer)
	}
	code := azservicebus.Code("")
	if e, ok := errors.AsType[*azservicebus.Error](err); ok {
		code = e.Code
	}
	condition := conditionOf(err)
	_, isRecord := errors.AsType[tls.RecordHeaderError](err)
	certificate, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	dns, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case condition == amqp.ErrCondUnauthorizedAccess, code == azservicebus.CodeUnauthorizedAccess:
		return "the namespace refuses the key or identity, or it lacks a right (" + said(err) + ")", p.rightsRemedy()
	case isNotFound(err):
		return "the topic or the subscription does not exist (" + said(err) + ")", p.missingRemedy()
	case condition == condDisabled, condition == condForbidden:
		return "the topic or the subscription is disabled (" + said(err) + ")", "enable it in the portal"
	case isBusy(err):
		return "the namespace is throttled", "it is tried again in a few seconds; if that lasts, raise fewer or larger events, or take the Premium tier"
	case condition == amqp.ErrCondResourceLimitExceeded:
		return "the topic is full, or another quota of the namespace is used up (" + said(err) + ")",
			"subscriptions of instances that are gone may hold the messages: remove them, as the janitor does, or raise the topic's size"
	case condition == amqp.ErrCondMessageSizeExceeded, errors.Is(err, azservicebus.ErrMessageTooLarge):
		return "the namespace takes no message of that size", "lower MaxFrameBytes, on all instances or on this one"
	case isDNS && dns.IsNotFound:
		return fmt.Sprintf("the host %q is not known", dns.Name), "correct the namespace, or the name server"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens there (" + said(err) + ")", "correct the namespace, or start the emulator"
	case strings.Contains(err.Error(), "unexpected protocol"): // which go-amqp has no type for
		return "the server there is none of Service Bus (" + said(err) + ")", "correct the namespace"
	case isRecord:
		return "it does not speak TLS there", "for an emulator, write UseDevelopmentEmulator=true into the connection string"
	case isCertificate:
		return "its certificate is not accepted: " + uplink.FirstLine(certificate.Error()), "make this system trust who signed it (SSL_CERT_FILE), or in code set TLS"
	case errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return "no answer in time", "is port 5671 open to the outside? If only 443 is, in code set NewWebSocketConn"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed), isLost(err):
		return "the connection is lost (" + said(err) + ")", "it is made again by itself"
	}
	return said(err), "it is tried again while the instance runs"
}

// diagnoseAnswer explains an error of the administration, which speaks HTTP.
func (p *Provider) diagnoseAnswer(answer *azcore.ResponseError) (what, remedy string) {
	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Sprintf("the namespace refuses the key or identity, or it may not manage (HTTP %d)", answer.StatusCode), p.rightsRemedy()
	case http.StatusNotFound:
		return "the topic does not exist (HTTP 404)", p.missingRemedy()
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return fmt.Sprintf("the namespace is throttled (HTTP %d)", answer.StatusCode), "it is tried again; if that lasts, let fewer instances start at once"
	case http.StatusConflict, http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		return fmt.Sprintf("the namespace cannot do that now (HTTP %d)", answer.StatusCode), "it is tried again while the instance runs"
	case http.StatusBadRequest, http.StatusPaymentRequired:
		return fmt.Sprintf("the namespace takes no topic or subscription of that kind (HTTP %d)", answer.StatusCode), "it must be of the Standard or Premium tier, and below its quota of topics and subscriptions"
	}
	return fmt.Sprintf("the namespace answers HTTP %d", answer.StatusCode), "see the state of the namespace in the portal"
}

func (p *Provider) rightsRemedy() string {
	if p.cfg.owned {
		return "give the policy in ConnectionString the rights Manage, Send and Listen, or the identity the role Azure Service Bus Data Owner; check its key. " +
			"With Send and Listen alone, make topic and subscription beforehand and set Subscription"
	}
	return "give the policy in ConnectionString the rights Send and Listen, or the identity the roles Azure Service Bus Data Sender and Data Receiver; check its key"
}

func (p *Provider) missingRemedy() string {
	if p.cfg.owned {
		return "it is made again"
	}
	return fmt.Sprintf("make the topic %s-SITE and in it the subscription %s, or leave Subscription empty and give the right Manage", p.cfg.prefix, p.cfg.subscription)
}

// conditionOf returns by which condition of AMQP the service refused, or nothing.
func conditionOf(err error) amqp.ErrCond {
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return e.Condition
	}
	if e, ok := errors.AsType[*amqp.LinkError](err); ok && e.RemoteErr != nil {
		return e.RemoteErr.Condition
	}
	return ""
}

// isNotFound reports whether err says that a topic or a subscription is not there.
func isNotFound(err error) bool {
	e, ok := errors.AsType[*azservicebus.Error](err)
	return conditionOf(err) == amqp.ErrCondNotFound || ok && e.Code == azservicebus.CodeNotFound
}

// isLost reports whether err says that the connection is gone, without a reason.
func isLost(err error) bool {
	e, ok := errors.AsType[*azservicebus.Error](err)
	return errors.Is(err, errReplaced) || ok && (e.Code == azservicebus.CodeConnectionLost || e.Code == azservicebus.CodeClosed)
}

// isRefused reports whether the service has ended the link that err comes from.
func isRefused(err error) bool {
	e, ok := errors.AsType[*azservicebus.Error](err)
	condition := conditionOf(err)
	return isNotFound(err) || condition == condDisabled || condition == condForbidden || condition == amqp.ErrCondUnauthorizedAccess ||
		ok && e.Code == azservicebus.CodeUnauthorizedAccess
}

func isBusy(err error) bool { return conditionOf(err) == condBusy }

func isTimeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

// said returns what the service or the system said, for people. The SDK lets out only as text what it has wrapped.
func said(err error) string {
	text := err.Error()
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Description != "" {
		text = e.Description
	}
	if e, ok := errors.AsType[*azservicebus.Error](err); ok {
		text = strings.TrimPrefix(text, "("+string(e.Code)+"): ")
	}
	for _, label := range []string{"Description: ", "description: "} {
		if _, after, ok := strings.Cut(text, label); ok {
			text, _, _ = strings.Cut(after, ", Info: map[")
		}
	}
	return strings.TrimSuffix(uplink.FirstLine(text), ".")
}
