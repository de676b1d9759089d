package awsbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

const (
	retention  = 10 * time.Minute // what is older, the Broker has told as missed long ago
	visibility = 30 * time.Second // for which what was received stays away
	tagSite    = "carillon:site"
)

// A link is a queue that is subscribed. It lasts until a call to receive fails otherwise than passingly.
type link struct {
	p      *Provider
	env    provider.Env
	topics map[site.ID]string // ARNs, of all sites whose frames are accepted

	ctx   context.Context // ends with the link; its cause is why
	end   context.CancelCauseFunc
	tasks sync.WaitGroup

	made made
}

// made is what this instance has at the services. The zero made is nothing.
type made struct {
	tried         bool   // to make a queue
	url           string // of the queue
	policy        string
	subscriptions map[string]string // ARNs, by those of their topics
	unfiltered    bool              // there are too many filter policies
	proven        bool              // what is published arrives; not known after queue or subscription was made anew
}

// connect makes a link whose way from Send to Deliver has been tried out. ctx bounds this alone.
func (p *Provider) connect(ctx context.Context, env provider.Env) (*link, error) {
	if p.queue == "" {
		p.own = newInstanceID()
		p.queue = p.names.queue(env.Site, p.own)
	}
	l := &link{p: p, env: env, topics: make(map[site.ID]string)}
	l.ctx, l.end = context.WithCancelCause(context.Background())
	err := l.open(ctx)
	if err == nil && !l.made.proven {
		err = l.tryOut(ctx)
	}
	if err != nil {
		l.end(err)
		return nil, err
	}
	l.made = p.remember(func(m *made) { m.proven = true })
	l.tasks.Go(func() { p.finished.run(l.ctx, p.times.linger, l.deleteMessages) })
	l.tasks.Go(l.watch)
	return l, nil
}

// open makes sure of topics, queue and subscriptions. All of it may be there already.
func (l *link) open(ctx context.Context) error {
	p := l.p
	sites := map[site.ID]bool{l.env.Site: true}
	for _, s := range l.env.Sites {
		sites[s] = true
	}
	if m := p.members.Load(); m != nil {
		maps.Copy(sites, m.sites)
	}
	for s := range sites {
		out, err := p.clients.sns.CreateTopic(ctx, &sns.CreateTopicInput{Name: aws.String(p.names.topic(s))})
		if err != nil {
			return p.explain(err)
		}
		l.topics[s] = aws.ToString(out.TopicArn)
	}
	queue := queueARN(l.topics[l.env.Site], p.queue)
	if err := l.openQueue(ctx, queuePolicy(queue, slices.Sorted(maps.Values(l.topics)))); err != nil {
		return err
	}
	for _, topic := range l.topics {
		if err := l.subscribe(ctx, topic, queue); err != nil {
			return err
		}
	}
	return nil
}

// openQueue makes the queue, or finds it.
func (l *link) openQueue(ctx context.Context, policy string) error {
	p := l.p
	before := p.remember(func(m *made) { m.tried = true })
	if before.url != "" && before.policy != policy { // or else CreateQueue finds it to be another one
		_, err := p.clients.sqs.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{
			QueueUrl: &before.url, Attributes: map[string]string{attributePolicy: policy},
		})
		if _, gone := errors.AsType[*sqstypes.QueueDoesNotExist](err); err != nil && !gone {
			return p.explain(err)
		}
	}
	seconds := func(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }
	out, err := p.clients.sqs.CreateQueue(ctx, &sqs.CreateQueueInput{
		QueueName: &p.queue,
		Attributes: map[string]string{
			attributePolicy:          policy,
			"MessageRetentionPeriod": seconds(retention),
			"VisibilityTimeout":      seconds(visibility),
		},
		Tags: map[string]string{tagSite: l.env.Site.String()},
	})
	if err != nil {
		return p.explain(err)
	}
	l.made = p.remember(func(m *made) { m.url, m.policy = aws.ToString(out.QueueUrl), policy })
	return nil
}

// subscribe has the queue hear of a topic. A subscription that is there already is found.
func (l *link) subscribe(ctx context.Context, topic, queue string) error {
	p := l.p
	attributes := map[string]string{"RawMessageDelivery": "true"}
	if !l.made.unfiltered {
		attributes["FilterPolicy"] = filterPolicy(p.own)
	}
	out, err := p.clients.sns.Subscribe(ctx, &sns.SubscribeInput{
		TopicArn: &topic, Protocol: aws.String("sqs"), Endpoint: &queue, Attributes: attributes, ReturnSubscriptionArn: true,
	})
	if _, full := errors.AsType[*snstypes.FilterPolicyLimitExceededException](err); full && !l.made.unfiltered {
		l.env.Logger.LogAttrs(ctx, slog.LevelWarn, "the topic takes no further filter policy, so this instance receives, and pays for, what is not for it; Amazon raises the limit on request",
			slog.String(keyTopic, topic))
		l.made = p.remember(func(m *made) { m.unfiltered = true })
		return l.subscribe(ctx, topic, queue)
	}
	if err != nil {
		return p.explain(err)
	}
	l.made = p.remember(func(m *made) {
		m.subscriptions = maps.Clone(m.subscriptions)
		if m.subscriptions == nil {
			m.subscriptions = make(map[string]string)
		}
		m.proven = m.proven && m.subscriptions[topic] == aws.ToString(out.SubscriptionArn)
		m.subscriptions[topic] = aws.ToString(out.SubscriptionArn)
	})
	return nil
}

// tryOut publishes a message to this instance alone, until one arrives: so the rights are there, the policies have taken
// effect, and the subscription has. What else arrives is delivered.
func (l *link) tryOut(ctx context.Context) error {
	p := l.p
	limit := time.Now().Add(p.times.way)
	if deadline, ok := ctx.Deadline(); ok { // to be able to say what is wrong, instead of that time is over; the last poll may be a second late
		if earlier := time.Now().Add(time.Until(deadline)*3/4 - time.Second); earlier.Before(limit) {
			limit = earlier
		}
	}
	nonce := string(newInstanceID())
	for first := true; first || time.Now().Before(limit); first = false {
		if err := l.publishBodies(ctx, l.topics[l.env.Site], fromProbe, string(p.own), []string{nonce}); err != nil {
			return err
		}
		for again := time.Now().Add(p.times.probe); time.Now().Before(again); {
			// A poll ends by itself: one that is broken off might take messages with it.
			messages, err := l.poll(ctx, max(time.Second, min(p.times.poll, time.Until(again))))
			if _, gone := errors.AsType[*sqstypes.QueueDoesNotExist](err); gone { // a new one may need a second to be known everywhere
				err = pause(ctx, p.times.probe/2)
			}
			if err != nil {
				return err
			}
			if l.take(messages, nonce) {
				return l.tryDelete(ctx)
			}
		}
	}
	return fmt.Errorf("aws: what is published to the topic %s does not arrive in the queue %s; "+
		"see whether the policy of the queue was changed, and whether the topic is encrypted with a key that SNS may not use for it",
		l.topics[l.env.Site], p.queue)
}

// tryDelete deletes what has been delivered meanwhile, so that a missing right shows here.
func (l *link) tryDelete(ctx context.Context) error {
	again, err := l.deleteMessages(ctx, l.p.finished.take())
	l.p.finished.put(again...)
	if err != nil {
		return l.p.explain(err)
	}
	return nil
}

// poll asks for messages, and waits for them up to wait.
func (l *link) poll(ctx context.Context, wait time.Duration) ([]sqstypes.Message, error) {
	p := l.p
	ctx, cancel := context.WithTimeoutCause(ctx, wait+p.times.answer, errNoAnswer)
	defer cancel()
	out, err := p.clients.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &l.made.url, MaxNumberOfMessages: maxBatch, WaitTimeSeconds: int32(wait / time.Second),
		MessageAttributeNames: []string{attrFrom, attrTo},
	})
	if err != nil {
		if context.Cause(ctx) == errNoAnswer {
			err = fmt.Errorf("%w: %w", errNoAnswer, err)
		}
		if _, gone := errors.AsType[*sqstypes.QueueDoesNotExist](err); gone {
			p.remember(func(m *made) { m.proven = false })
		}
		return nil, p.explain(err)
	}
	return out.Messages, nil
}

// take delivers messages, and reports whether the one that tries out the way was among them.
func (l *link) take(messages []sqstypes.Message, nonce string) (arrived bool) {
	p := l.p
	for _, m := range messages {
		receipt := aws.ToString(m.ReceiptHandle)
		done := func() { p.finished.add(receipt) }
		body := aws.ToString(m.Body)
		from, to := attribute(m, attrFrom), attribute(m, attrTo)
		switch {
		case from == fromProbe:
			arrived = arrived || to == string(p.own) && body == nonce
			done()
		case from == string(p.own), to != toAll && to != string(p.own):
			done() // the filter policy has not taken effect, or there is none
		default:
			frames, ok := unpack(body)
			if !ok {
				frames = [][]byte{[]byte(body)} // no instance sends this; the Broker counts it
			}
			l.env.Deliver(provider.Batch{Frames: frames, From: from, Done: done})
		}
	}
	return arrived
}

func attribute(m sqstypes.Message, name string) string {
	return aws.ToString(m.MessageAttributes[name].StringValue)
}

// Wait implements [uplink.Link]: it receives.
func (l *link) Wait(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { l.end(ctx.Err()) })()
	for l.ctx.Err() == nil {
		messages, err := l.poll(l.ctx, l.p.times.poll)
		if err != nil {
			l.end(err)
			break
		}
		l.take(messages, "")
	}
	return context.Cause(l.ctx)
}

// watch looks from time to time whether the subscriptions are still there: without one nothing would arrive, and nothing fail.
func (l *link) watch() {
	tick := time.NewTicker(l.p.times.check)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			return
		}
		for topic, s := range l.made.subscriptions {
			_, err := l.p.clients.sns.GetSubscriptionAttributes(l.ctx, &sns.GetSubscriptionAttributesInput{SubscriptionArn: &s})
			if _, gone := errors.AsType[*snstypes.NotFoundException](err); gone {
				l.end(fmt.Errorf("aws: the subscription of the queue %s to the topic %s is gone", l.p.queue, topic))
			}
			// Anything else says nothing of the subscription.
		}
	}
}

// Close implements [uplink.Link]. What the services keep is the Provider's.
func (l *link) Close(context.Context) {
	l.end(provider.ErrClosed)
	l.tasks.Wait()
	l.p.clients.close()
}

// remember changes what is known to be at the services, and returns it.
func (p *Provider) remember(change func(*made)) made {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.made)
	return p.made
}

const attributePolicy = "Policy"
