package awsbustest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	defaultKey    = "AKIAEMULATOR00000000"
	defaultSecret = "emulated/secret/of/the/default/user"
)

// A user is whose signature is accepted.
type user struct {
	secret, token string
	expired       bool
	denied        map[string]bool
}

// AddUser adds one who may do everything. token is empty for keys that do not expire.
func (e *Emulator) AddUser(key, secret, token string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.users[key] = &user{secret: secret, token: token, denied: make(map[string]bool)}
}

// Deny takes rights from a user: actions as policies have them, such as "sns:Publish". They are refused from the next call on.
func (e *Emulator) Deny(key string, actions ...string) { e.grant(key, true, actions) }

// Allow gives rights back.
func (e *Emulator) Allow(key string, actions ...string) { e.grant(key, false, actions) }

// DefaultUser is the key of the user of [Emulator.Config].
func (e *Emulator) DefaultUser() string { return defaultKey }

func (e *Emulator) grant(key string, denied bool, actions []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range actions {
		e.users[key].denied[a] = denied
	}
}

// Expire makes the credentials of a user too old, or valid again.
func (e *Emulator) Expire(key string, expired bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.users[key].expired = expired
}

// permission is the right that an operation needs.
func permission(service, name string) string {
	return service + ":" + strings.TrimSuffix(name, "Batch")
}

// admitLocked says why a request is refused. e.mu is held.
func (e *Emulator) admitLocked(r *http.Request, service, name string, body []byte) error {
	refuse := func(code, format string, args ...any) error {
		return &Fault{http.StatusForbidden, code, fmt.Sprintf(format, args...)}
	}
	fields := make(map[string]string)
	algorithm, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	for part := range strings.SplitSeq(rest, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[k] = v
	}
	scope := strings.Split(fields["Credential"], "/") // key, day, region, service, aws4_request
	if algorithm != "AWS4-HMAC-SHA256" || len(scope) != 5 {
		return refuse("MissingAuthenticationToken", "Request is missing Authentication Token")
	}
	u := e.users[scope[0]]
	switch {
	case scope[2] != e.opts.Region:
		return refuse("SignatureDoesNotMatch", "Credential should be scoped to a valid region. ")
	case scope[3] != service:
		return refuse("SignatureDoesNotMatch", "Credential should be scoped to correct service: '%s'. ", service)
	case u == nil && service == "sqs":
		return refuse("UnrecognizedClientException", "The security token included in the request is invalid.")
	case u == nil:
		return refuse("InvalidClientTokenId", "The security token included in the request is invalid.")
	case u.token != r.Header.Get("X-Amz-Security-Token"):
		return refuse("InvalidClientTokenId", "The security token included in the request is invalid")
	case !signed(r, u, scope, fields["SignedHeaders"], body):
		// As the real one, it tells what it has signed, headers included.
		return refuse("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. "+
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.\n\n"+
			"The Canonical String for this request should have been\n'POST\n/\n\nx-amz-security-token:%s\n'", r.Header.Get("X-Amz-Security-Token"))
	case u.expired && service == "sqs":
		return refuse("ExpiredTokenException", "The security token included in the request is expired")
	case u.expired:
		return refuse("ExpiredToken", "The security token included in the request is expired")
	case u.denied[permission(service, name)]:
		code := "AuthorizationError"
		if service == "sqs" {
			code = "AccessDeniedException"
		}
		return refuse(code, "User: arn:aws:iam::%s:user/%s is not authorized to perform: %s on resource: (some) because no identity-based policy allows the %[3]s action",
			e.opts.Account, scope[0], permission(service, name))
	}
	return nil
}

// signed reports whether the signature of r is that of u.
func signed(r *http.Request, u *user, scope []string, headers string, body []byte) bool {
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return false
	}
	again, err := http.NewRequest(r.Method, "http://"+r.Host+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return false
	}
	for h := range strings.SplitSeq(headers, ";") {
		switch {
		case h == "host" || h == "content-length":
		default:
			again.Header[http.CanonicalHeaderKey(h)] = r.Header.Values(h)
		}
	}
	hash := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(r.Context(), aws.Credentials{AccessKeyID: scope[0], SecretAccessKey: u.secret, SessionToken: u.token},
		again, hex.EncodeToString(hash[:]), scope[3], scope[2], at)
	return err == nil && again.Header.Get("Authorization") == r.Header.Get("Authorization")
}
