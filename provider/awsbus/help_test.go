package awsbus

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sns/types"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/awsbus/awsbustest"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

const patience = 20 * time.Second

// eventually polls cond until it is true, and returns false when that takes longer than patience.
func eventually(cond func() bool) bool { return providertest.Eventually(patience, cond) }

// newTest returns a Provider whose waits are short.
func newTest(tb testing.TB, cfg Config) *Provider {
	tb.Helper()
	p, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	p.times.linger, p.times.probe = 5*time.Millisecond, 100*time.Millisecond
	return p
}

// at returns a Provider at an emulator.
func at(tb testing.TB, e *awsbustest.Emulator) *Provider {
	tb.Helper()
	return newTest(tb, Config{AWS: e.Config(), Endpoint: e.URL()})
}

// start returns n started endpoints at an emulator, which know each other.
func start(tb testing.TB, e *awsbustest.Emulator, n int) []*providertest.Endpoint {
	tb.Helper()
	var all []*providertest.Endpoint
	for range n {
		all = append(all, providertest.Start(tb, at(tb, e)))
	}
	providertest.Introduce(all...)
	return all
}

// runs reports whether p has been started and not closed.
func (p *Provider) runs() bool {
	_, ok := p.keeper.Link()
	return ok
}

func of(e *providertest.Endpoint) *Provider { return e.Provider.(*Provider) }

// carry sends a frame again and again until it is heard.
func carry(tb testing.TB, from, to *providertest.Endpoint, frame string) {
	tb.Helper()
	var last error
	if !eventually(func() bool {
		last = from.Provider.Send(tb.Context(), [][]byte{[]byte(frame)})
		return to.Heard([]byte(frame), 20*time.Millisecond)
	}) {
		tb.Fatalf("%q is not heard; the last error of Send is %v", frame, last)
	}
}

// publish publishes a message as a stranger with the right to would.
func publish(ctx context.Context, e *awsbustest.Emulator, s site.ID, from, to, body string) error {
	c := newClients(Config{AWS: e.Config(), Endpoint: e.URL()})
	defer c.close()
	topic, err := c.sns.CreateTopic(ctx, &sns.CreateTopicInput{Name: aws.String(newNames(defaultPrefix).topic(s))})
	if err != nil {
		return err
	}
	text := func(s string) types.MessageAttributeValue {
		return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &s}
	}
	out, err := c.sns.PublishBatch(ctx, &sns.PublishBatchInput{TopicArn: topic.TopicArn, PublishBatchRequestEntries: []types.PublishBatchRequestEntry{{
		Id: aws.String("0"), Message: &body, MessageAttributes: map[string]types.MessageAttributeValue{attrFrom: text(from), attrTo: text(to)},
	}}})
	if err == nil && len(out.Failed) > 0 {
		err = &awsbustest.Fault{Code: aws.ToString(out.Failed[0].Code), Message: aws.ToString(out.Failed[0].Message)}
	}
	return err
}

// envOf returns an environment for a Start that fails.
func envOf(tb testing.TB, p *Provider) provider.Env {
	return providertest.NewEndpoint(tb, p, provider.Env{}).Env()
}
