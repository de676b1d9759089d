package awsbus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/aws/smithy-go"

	"github.com/carillon-go/carillon/provider/uplink"
)

var errNoAnswer = errors.New("no answer in time")

// explain returns err as one line that says what to do.
func (p *Provider) explain(err error) error {
	if t, ok := errors.AsType[*uplink.Trouble](err); ok {
		return t
	}
	call := "call"
	if op, ok := errors.AsType[*smithy.OperationError](err); ok {
		call = strings.ToLower(op.ServiceID) + ":" + strings.TrimSuffix(op.OperationName, "Batch")
	}
	what, remedy := p.diagnose(call, err)
	line := "aws: " + call + ": " + what
	if remedy != "" {
		line += "; " + remedy
	}
	return uplink.NewTrouble(line, err)
}

// diagnose says what is wrong and what to do about it.
func (p *Provider) diagnose(call string, err error) (what, remedy string) {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return p.diagnoseCode(call, api.ErrorCode(), api.ErrorMessage())
	}
	dns, isDNS := errors.AsType[*net.DNSError](err)
	_, isUnknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, isName := errors.AsType[x509.HostnameError](err)
	_, isRecord := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case errors.Is(err, errNoAnswer), isTimeout(err):
		return "no answer in time from " + p.place(), "is the network to it up, and no firewall in between?"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return uplink.FirstLine(lastOf(err)), ""
	case isDNS && dns.IsNotFound:
		return fmt.Sprintf("the host %q is not known", dns.Name), fmt.Sprintf("check Region, which is %q, or Endpoint", p.cfg.Region)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens at " + p.place(), "check Endpoint, and whether it is running"
	case isUnknown, isName, isRecord, errors.Is(err, http.ErrSchemeMismatch):
		return "TLS at " + p.place() + " fails: " + uplink.FirstLine(tlsError(err)), "check Endpoint, the trusted authorities (AWS_CA_BUNDLE), and proxies in between"
	case strings.Contains(err.Error(), "credentials"):
		// From the chain of the SDK, before anything was sent.
		return "there are no credentials: " + uplink.FirstLine(lastOf(err)), "give the process a role, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
	}
	return uplink.FirstLine(lastOf(err)), "see whether the network to " + p.place() + " is up"
}

// place is where the services are.
func (p *Provider) place() string {
	if p.cfg.Endpoint != "" {
		return p.cfg.Endpoint
	}
	return "Amazon in " + p.cfg.Region
}

// diagnoseCode is diagnose for what a service answers. Messages are repeated where they tell more; that of a wrong signature is not, since it
// repeats the headers of the request, the session token among them.
func (p *Provider) diagnoseCode(call, code, message string) (what, remedy string) {
	has := func(parts ...string) bool {
		for _, s := range parts {
			if strings.Contains(code, s) {
				return true
			}
		}
		return false
	}
	switch {
	case has("KMS"):
		return "the key of the encryption cannot be used (" + code + ")", "let SNS and this role use it, in the key's policy"
	case has("AccessDenied", "AuthorizationError", "NotAuthorized"):
		return "the right is missing", fmt.Sprintf("allow %s to this user or role on %s, in its IAM policy, and see that no other policy denies it", call, p.resources(call))
	case has("ExpiredToken"):
		return "the credentials have expired", "renew them: sign in again (aws sso login), or give the process a role instead of a session"
	case has("InvalidClientTokenId", "UnrecognizedClient", "InvalidAccessKeyId"):
		return "the access key is not known, or the session token does not belong to it", "check AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN, or the profile"
	case has("SignatureDoesNotMatch", "InvalidSignature", "IncompleteSignature") && strings.Contains(message, "scoped to"):
		return "the region is wrong", fmt.Sprintf("set Region, which is %q, to that of Endpoint", p.cfg.Region)
	case has("SignatureDoesNotMatch", "InvalidSignature", "IncompleteSignature", "MissingAuthenticationToken"):
		return "the signature is wrong", "check AWS_SECRET_ACCESS_KEY, and the clock of this machine"
	case has("RequestExpired", "RequestTimeTooSkewed", "RequestInTheFuture"):
		return "the clock of this machine is wrong", "set it (NTP)"
	case has("OptInRequired", "InvalidAction"), code == "SubscriptionRequiredException":
		return "the account does not use the service in " + p.cfg.Region, "enable the region, or check Endpoint"
	case has("Throttl", "TooManyRequests", "SlowDown", "RequestLimitExceeded"):
		return "Amazon limits the rate", "it is tried on; if it stays, raise the quota of the account (Service Quotas)"
	case has("QueueDeletedRecently"):
		return "the queue was deleted", "SQS lets it be made again after a minute; nothing to do"
	case has("LimitExceeded", "OverLimit"):
		return "a quota of the account is used up (" + code + ")", "raise it (Service Quotas), or remove topics, queues or subscriptions that nobody uses"
	case has("QueueDoesNotExist", "NonExistentQueue"):
		return "the queue is gone", "it is made again"
	case has("NotFound"):
		return "the topic is gone", "it is made again"
	}
	return uplink.FirstLine(code + ": " + message), "see the documentation of the service"
}

// resources is what the policies of IAM name.
func (p *Provider) resources(call string) string {
	prefix := p.names.prefix
	if strings.HasPrefix(call, "sqs:") {
		prefix = p.names.short
	}
	switch call {
	case "sqs:ListQueues", "sns:Unsubscribe", "sns:GetSubscriptionAttributes": // these are granted for everything only
		return "*"
	}
	return fmt.Sprintf("arn:aws:%.3s:%s:ACCOUNT:%s-*", call, p.cfg.Region, prefix)
}

func isTimeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

// tlsError returns the part of err that tells what is wrong with TLS.
func tlsError(err error) string {
	if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return v.Error()
	}
	return lastOf(err)
}

// lastOf returns the innermost error's text: around it the SDK repeats what was called.
func lastOf(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
