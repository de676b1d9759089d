package awsbus

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/carillon-go/carillon/provider/providertest"
)

const secret = "s3cr3tK3y/in+all+these+tests"

// withSecret returns credentials as applications have them.
func withSecret() aws.Config {
	static := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "AKIAX", SecretAccessKey: secret, SessionToken: secret}, nil
	})
	return aws.Config{Region: "eu-central-1", Credentials: aws.NewCredentialsCache(static)}
}

func TestConfig_RefusesWhatCannotWork(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // in the error; empty: none
	}{
		{"no credentials", Config{Region: "eu-central-1"}, "AWS has no credentials"},
		{"no region", Config{AWS: aws.Config{Credentials: withSecret().Credentials}}, "Region is missing"},
		{"an endpoint without scheme", Config{AWS: withSecret(), Endpoint: "127.0.0.1:4566"}, "Endpoint"},
		{"an endpoint with a password", Config{AWS: withSecret(), Endpoint: "http://u:" + secret + "@h"}, "Endpoint"},
		{"a dot in the prefix", Config{AWS: withSecret(), Prefix: "a.b"}, "Prefix"},
		{"a long prefix", Config{AWS: withSecret(), Prefix: strings.Repeat("a", maxPrefix+1)}, "Prefix"},
		{"the longest prefix", Config{AWS: withSecret(), Prefix: strings.Repeat("a", maxPrefix)}, ""},
		{"a frame that is too small", Config{AWS: withSecret(), MaxFrameBytes: minFrameBytes - 1}, "MaxFrameBytes"},
		{"the smallest frame", Config{AWS: withSecret(), MaxFrameBytes: minFrameBytes}, ""},
		{"the largest frame", Config{AWS: withSecret(), MaxFrameBytes: maxFrameBytes}, ""},
		{"a frame that no message holds", Config{AWS: withSecret(), MaxFrameBytes: maxFrameBytes + 1}, "MaxFrameBytes"},
		{"credentials and a region", Config{AWS: withSecret()}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.cfg)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one with %q", err, tt.want)
			case err != nil:
				providertest.CheckNoSecret(t, secret, err)
			}
		})
	}
}

func TestConfig_ShowsNoSecret(t *testing.T) {
	cfg := Config{AWS: withSecret(), Endpoint: "http://127.0.0.1:1"}
	p := newTest(t, cfg)
	err := p.Start(t.Context(), envOf(t, p))
	if err == nil {
		t.Fatal("it starts, although nobody listens")
	}
	providertest.CheckNoSecret(t, secret, cfg, &cfg, p, err, Config{AWS: withSecret(), Endpoint: "http://u:" + secret + "@h"})
}

// do is an [aws.HTTPClient].
type do func(*http.Request) (*http.Response, error)

func (fn do) Do(r *http.Request) (*http.Response, error) { return fn(r) }

// See plainBodies: of a body that can write itself the transport makes an error after the SDK has closed it.
func TestPlainBodies_CanOnlyBeRead(t *testing.T) {
	var got io.Reader
	c := plainBodies{do(func(r *http.Request) (*http.Response, error) { got = r.Body; return nil, nil })}
	r, err := http.NewRequest("POST", "http://127.0.0.1:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Body = io.NopCloser(bytes.NewReader([]byte("body")))
	if _, ok := r.Body.(io.WriterTo); !ok {
		t.Fatal("this test needs a body that can write itself")
	}
	c.Do(r)
	if _, ok := got.(io.WriterTo); ok {
		t.Error("the body can write itself")
	}
	if used := newClients(Config{AWS: withSecret()}); fmt.Sprintf("%T %T", used.sns.Options().HTTPClient, used.sqs.Options().HTTPClient) !=
		"awsbus.plainBodies awsbus.plainBodies" {
		t.Errorf("the clients use %T and %T", used.sns.Options().HTTPClient, used.sqs.Options().HTTPClient)
	}
	if b, err := io.ReadAll(got); string(b) != "body" || err != nil {
		t.Errorf("the body is %q, %v", b, err)
	}
}
