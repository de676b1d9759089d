package awsbus

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

const (
	dialTimeout = 5 * time.Second
	attempts    = 3 // of a call that the service itself could not serve just now
	maxBackoff  = time.Second
)

// clients are what the services are asked with.
type clients struct {
	sns *sns.Client
	sqs *sqs.Client
	own *http.Client // nil: the application's is used
}

func newClients(cfg Config) clients {
	var c clients
	switch h := cfg.AWS.HTTPClient.(type) {
	case nil:
		c.own = closable(awshttp.NewBuildableClient())
	case *awshttp.BuildableClient: // of config.LoadDefaultConfig
		c.own = closable(h)
	}
	if c.own != nil {
		cfg.AWS.HTTPClient = c.own
	}
	cfg.AWS.HTTPClient = plainBodies{cfg.AWS.HTTPClient}
	if cfg.Endpoint != "" {
		cfg.AWS.BaseEndpoint = &cfg.Endpoint
	}
	cfg.AWS.RetryMaxAttempts, cfg.AWS.RetryMode = 0, ""
	cfg.AWS.Retryer = newRetryer
	c.sns, c.sqs = sns.NewFromConfig(cfg.AWS), sqs.NewFromConfig(cfg.AWS)
	return c
}

// closable returns a client with the settings of b whose connections can be closed.
func closable(b *awshttp.BuildableClient) *http.Client {
	d := b.GetDialer()
	if d.Timeout == 0 || d.Timeout > dialTimeout {
		d.Timeout = dialTimeout
	}
	t := b.GetTransport()
	t.DialContext = d.DialContext
	return &http.Client{
		Transport:     t,
		Timeout:       b.GetTimeout(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // signatures are for one host
	}
}

// plainBodies is a client that is given bodies which can only be read. Those of the SDK can write themselves as well, and once the
// SDK has closed one, which it does as soon as there is a response, they answer the transport's question for more with io.EOF as an error. If
// the response was that quick, the transport then closes the connection while the response is read from it.
type plainBodies struct{ aws.HTTPClient }

// Do implements [aws.HTTPClient].
func (c plainBodies) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return c.HTTPClient.Do(r)
}

// newRetryer returns what repeats calls that the service refused or failed at, and no others: when a connection breaks, what was
// received over it is gone for a while, and the Broker must hear of that.
func newRetryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff = attempts, maxBackoff
		o.RateLimiter = ratelimit.None
		o.Retryables = []retry.IsErrorRetryable{
			retry.NoRetryCanceledError{},
			retry.RetryableHTTPStatusCode{Codes: retry.DefaultRetryableHTTPStatusCodes},
			retry.RetryableErrorCode{Codes: retry.DefaultThrottleErrorCodes},
		}
	})
}

// close ends connections that nobody uses.
func (c clients) close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}

// Format implements [fmt.Formatter]: clients hold credentials.
func (c clients) Format(f fmt.State, _ rune) { fmt.Fprint(f, "{}") }
