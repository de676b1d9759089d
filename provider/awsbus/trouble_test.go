package awsbus

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/awsbus/awsbustest"
	"github.com/carillon-go/carillon/provider/providertest"
)

// Whatever is wrong, the operator reads one line that says what to do, without the credentials.
func TestStart_SaysWhatToDo(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	as := func(key string, denied ...string) aws.Config {
		e.AddUser(key, secret, "token of "+secret)
		e.Deny(key, denied...)
		return e.ConfigOf(key, secret, "token of "+secret)
	}
	expired := as("AKIAEXPIRED")
	e.Expire("AKIAEXPIRED", true)
	elsewhere := as("AKIAELSEWHERE")
	elsewhere.Region = "us-east-1"
	none := as("AKIANONE")
	none.Credentials = aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, errors.New("no EC2 IMDS role found, operation error ec2imds: GetMetadata")
	}))
	secure := httptest.NewTLSServer(nil)
	defer secure.Close()
	secure.Config.ErrorLog = nil
	all := []string{"sns:DeleteTopic", "sqs:ListQueues", "sqs:GetQueueAttributes", "sns:ListSubscriptionsByTopic", "sqs:SendMessage",
		"sqs:SetQueueAttributes", "sns:GetSubscriptionAttributes", "sqs:GetQueueUrl", "sns:SetSubscriptionAttributes"}
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // in the error; empty: it starts
	}{
		{"the rights that an instance needs suffice", Config{AWS: as("AKIALEAST", all...)}, ""},
		{"wrong secret key", Config{AWS: e.ConfigOf("AKIALEAST", "not "+secret, "token of "+secret)}, "check AWS_SECRET_ACCESS_KEY"},
		{"wrong session token", Config{AWS: e.ConfigOf("AKIALEAST", secret, secret)}, "the session token does not belong to it"},
		{"unknown access key", Config{AWS: e.ConfigOf("AKIANOBODY", secret, "")}, "the access key is not known"},
		{"expired", Config{AWS: expired}, "the credentials have expired; renew them"},
		{"another region", Config{AWS: elsewhere}, `set Region, which is "us-east-1"`},
		{"no credentials", Config{AWS: none}, "there are no credentials"},
		{"no right to create the topic", Config{AWS: as("AKIA1", "sns:CreateTopic")},
			"allow sns:CreateTopic to this user or role on arn:aws:sns:eu-central-1:ACCOUNT:carillon-*"},
		{"no right to create the queue", Config{AWS: as("AKIA2", "sqs:CreateQueue")},
			"allow sqs:CreateQueue to this user or role on arn:aws:sqs:eu-central-1:ACCOUNT:carillon-*"},
		{"no right to subscribe", Config{AWS: as("AKIA3", "sns:Subscribe")}, "allow sns:Subscribe"},
		{"no right to publish", Config{AWS: as("AKIA4", "sns:Publish")}, "allow sns:Publish"},
		{"no right to receive", Config{AWS: as("AKIA5", "sqs:ReceiveMessage")}, "allow sqs:ReceiveMessage"},
		{"no right to delete", Config{AWS: as("AKIA6", "sqs:DeleteMessage")}, "allow sqs:DeleteMessage"},
		{"unknown host", Config{AWS: as("AKIA7"), Endpoint: "http://host.invalid"}, `the host "sns.host.invalid" is not known`},
		{"nobody listens", Config{AWS: as("AKIA8"), Endpoint: "http://127.0.0.1:1"}, "nobody listens at http://127.0.0.1:1"},
		{"an authority that is not trusted", Config{AWS: as("AKIA9"), Endpoint: secure.URL}, "AWS_CA_BUNDLE"},
		{"no TLS there", Config{AWS: as("AKIA10"), Endpoint: "https://" + e.Address()}, "TLS at https://" + e.Address()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.cfg.Endpoint == "" {
				tt.cfg.Endpoint = e.URL()
			}
			tt.want = strings.Replace(tt.want, "sns.host.invalid", "host.invalid", 1)
			p := newTest(t, tt.cfg)
			defer p.Close()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := p.Start(ctx, envOf(t, p))
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			t.Log(err)
			providertest.CheckNoSecret(t, secret, err)
			if tt.cfg.Endpoint == e.URL() && (len(e.Queues()) > 0 || e.Subscriptions() > 0) {
				t.Errorf("the failed Start leaves queues %q and %d subscriptions", e.Queues(), e.Subscriptions())
			}
		})
	}
}

// Connections that a failed Start has made are closed, though Close is never called.
func TestStart_LeavesNothingBehind(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	e.Deny(e.DefaultUser(), "sns:Publish")
	p := at(t, e)
	if err := p.Start(t.Context(), envOf(t, p)); err == nil {
		t.Fatal("it starts")
	}
	if !eventually(func() bool { return e.Connections() == 0 }) {
		t.Errorf("%d connections are left", e.Connections())
	}
	if q, n := e.Queues(), e.Subscriptions(); len(q) > 0 || n > 0 {
		t.Errorf("queues %q and %d subscriptions are left", q, n)
	}
}

// The topic's messages do not arrive: no call fails, and nothing would ever be heard.
func TestStart_FailsWhenNothingArrives(t *testing.T) {
	t.Parallel() // it mostly waits
	e := awsbustest.Start(t, awsbustest.Options{LateSubscriptions: 1 << 30})
	p := at(t, e)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	err := p.Start(ctx, envOf(t, p))
	if err == nil || !strings.Contains(err.Error(), "does not arrive in the queue") {
		t.Errorf("Start: %v", err)
	}
}

func TestStart_WaitsUntilTheSubscriptionTakesEffect(t *testing.T) {
	t.Parallel() // it mostly waits
	e := awsbustest.Start(t, awsbustest.Options{LateSubscriptions: 1})
	all := start(t, e, 2)
	if n := e.Calls()["sns:PublishBatch"]; n != 2*2 {
		t.Errorf("published %d times, want twice for each", n)
	}
	f := []byte("the first frame counts")
	if err := all[0].Provider.Send(t.Context(), [][]byte{f}); err != nil || !all[1].Heard(f, patience) {
		t.Errorf("not heard; Send: %v", err)
	}
}

func TestStart_WaitsUntilTheQueueIsKnown(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{LateQueues: 2})
	all := start(t, e, 2)
	carry(t, all[0], all[1], "a frame")
}

func TestDiagnose_AnswersThatTheEmulatorDoesNotGive(t *testing.T) {
	p := newTest(t, Config{AWS: withSecret()})
	for _, tt := range []struct{ code, message, want string }{
		{"KMSAccessDenied", "", "in the key's policy"},
		{"RequestExpired", "", "clock"},
		{"SubscriptionLimitExceeded", "", "Service Quotas"},
		{"OverLimit", "", "Service Quotas"},
		{"SignatureDoesNotMatch", "x-amz-security-token:" + secret, "AWS_SECRET_ACCESS_KEY"},
		{"Strange", "first line\nsecond line", "Strange: first line; see"},
	} {
		what, remedy := p.diagnoseCode("sqs:ReceiveMessage", tt.code, tt.message)
		line := what + "; " + remedy
		if !strings.Contains(line, tt.want) || strings.Contains(line, secret) || strings.Contains(line, "\n") {
			t.Errorf("%s is explained as %q, want one line with %q", tt.code, line, tt.want)
		}
	}
	if got := (&tls.CertificateVerificationError{Err: errors.New("unknown")}); !strings.Contains(tlsError(got), "unknown") {
		t.Errorf("TLS is explained as %q", tlsError(got))
	}
}

// A right that is taken away while the instance runs shows in Send, and is enough again when it is given back.
func TestSend_RightsRevokedAndGranted(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	all := start(t, e, 2)
	a, b := all[0], all[1]
	carry(t, a, b, "at first")

	e.Deny(e.DefaultUser(), "sns:Publish")
	err := a.Provider.Send(t.Context(), [][]byte{[]byte("without the right")})
	if err == nil || !strings.Contains(err.Error(), "allow sns:Publish") {
		t.Errorf("Send without the right to publish: %v", err)
	}
	if errors.Is(err, provider.ErrClosed) || errors.Is(err, provider.ErrFrameTooLarge) {
		t.Errorf("Send without the right to publish: %v, which is final", err)
	}
	e.Allow(e.DefaultUser(), "sns:Publish")
	carry(t, a, b, "with it again")

	before := b.Reconnects()
	e.Deny(e.DefaultUser(), "sqs:ReceiveMessage")
	carryOn := func(when string) {
		t.Helper()
		e.Stop() // ends the polls that run
		e.Restart()
		if !eventually(func() bool {
			err = b.Provider.Send(t.Context(), [][]byte{[]byte("deaf")})
			return err != nil && strings.Contains(err.Error(), "allow sqs:ReceiveMessage")
		}) {
			t.Errorf("%s: Send: %v", when, err)
		}
	}
	carryOn("without the right to receive")
	e.Allow(e.DefaultUser(), "sqs:ReceiveMessage")
	carry(t, a, b, "with that again")
	if b.Reconnects() == before {
		t.Error("Reconnected was not called")
	}
}

// Credentials that expire are renewed by the application's chain; until then Send says what is wrong.
func TestSend_ExpiredCredentials(t *testing.T) {
	e := awsbustest.Start(t, awsbustest.Options{})
	all := start(t, e, 2)
	e.Expire(e.DefaultUser(), true)
	err := all[0].Provider.Send(t.Context(), [][]byte{[]byte("too late")})
	if err == nil || !strings.Contains(err.Error(), "the credentials have expired; renew them") {
		t.Errorf("Send: %v", err)
	}
	e.Expire(e.DefaultUser(), false)
	carry(t, all[0], all[1], "renewed")
}

// A call that the services cannot serve just now is repeated.
func TestSend_PassingFaults(t *testing.T) {
	for name, fault := range map[string]*awsbustest.Fault{"throttled": awsbustest.Throttled(), "internal": awsbustest.Internal()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it mostly waits
			e := awsbustest.Start(t, awsbustest.Options{})
			all := start(t, e, 2)
			left := 1
			e.SetFaults(func(action string) *awsbustest.Fault {
				if action == "sns:PublishBatch" && left > 0 {
					left--
					return fault
				}
				return nil
			})
			f := []byte("a frame")
			if err := all[0].Provider.Send(t.Context(), [][]byte{f}); err != nil {
				t.Errorf("Send: %v", err)
			}
			if !all[1].Heard(f, patience) {
				t.Error("it is not heard")
			}
		})
	}
}

// A quota that is used up for long is told, and does not end the link.
func TestSend_Throttled(t *testing.T) {
	t.Parallel() // it mostly waits
	e := awsbustest.Start(t, awsbustest.Options{})
	all := start(t, e, 2)
	e.SetFaults(func(action string) *awsbustest.Fault {
		if action == "sns:PublishBatch" {
			return awsbustest.Throttled()
		}
		return nil
	})
	err := all[0].Provider.Send(t.Context(), [][]byte{[]byte("too much")})
	if err == nil || !strings.Contains(err.Error(), "Amazon limits the rate") {
		t.Errorf("Send: %v", err)
	}
	e.SetFaults(nil)
	carry(t, all[0], all[1], "less")
	if n := all[0].Reconnects(); n > 0 {
		t.Errorf("Reconnected was called %d times", n)
	}
}
