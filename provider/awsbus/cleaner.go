package awsbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
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

// remove takes down what this instance has at the services. What cannot be removed in time, others remove when the lease of the
// instance has ended.
func (p *Provider) remove() {
	p.mu.Lock()
	m := p.made
	p.made = made{}
	p.mu.Unlock()
	if !m.tried {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.times.remove)
	defer cancel()
	var tasks sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	task := func(fn func() error) {
		tasks.Go(func() {
			if err := fn(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	for _, arn := range m.subscriptions {
		task(func() error { return p.unsubscribe(ctx, arn) })
	}
	task(func() error {
		if m.url == "" { // it may have been made although nobody was told
			url, err := p.find(ctx, p.queue)
			if err != nil || url == "" {
				return err
			}
			m.url = url
		}
		return p.deleteQueue(ctx, m.url)
	})
	tasks.Wait()
	if len(errs) > 0 {
		p.keeper.Env().Logger.LogAttrs(ctx, slog.LevelWarn, "the queue or its subscription stays behind; others remove it when the lease of this instance has ended",
			slog.String(keyQueue, p.queue), slog.Any(keyError, errors.Join(errs...)))
	}
}

// Subscriptions implements [provider.Cleaner]: the queues. It needs a request for each thousand of them, and one for each.
func (p *Provider) Subscriptions(ctx context.Context, s site.ID) ([]provider.Subscription, error) {
	if err := p.open(); err != nil {
		return nil, err
	}
	defer p.rest()
	pages := sqs.NewListQueuesPaginator(p.clients.sqs, &sqs.ListQueuesInput{
		QueueNamePrefix: aws.String(p.names.queues(s)), MaxResults: aws.Int32(1000), // without it there is no second page
	})
	var all []provider.Subscription
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, p.explain(err)
		}
		for _, url := range page.QueueUrls {
			queue := url[strings.LastIndexByte(url, '/')+1:]
			if _, ok := p.names.instance(s, queue); !ok {
				continue
			}
			created, there, err := p.created(ctx, url)
			if err != nil {
				return nil, err
			}
			if there {
				all = append(all, provider.Subscription{Name: queue, Created: created})
			}
		}
	}
	return all, nil
}

// created returns when a queue was made, and false if it is gone.
func (p *Provider) created(ctx context.Context, url string) (time.Time, bool, error) {
	attributes, err := p.attributes(ctx, url, sqstypes.QueueAttributeNameCreatedTimestamp)
	if attributes == nil {
		return time.Time{}, false, err
	}
	seconds, err := strconv.ParseInt(attributes[string(sqstypes.QueueAttributeNameCreatedTimestamp)], 10, 64)
	if err != nil || seconds <= 0 {
		return time.Time{}, true, nil // it does not say
	}
	return time.Unix(seconds, 0), true, nil
}

// attributes returns attributes of a queue, or nil if it is gone.
func (p *Provider) attributes(ctx context.Context, url string, names ...sqstypes.QueueAttributeName) (map[string]string, error) {
	out, err := p.clients.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: names})
	if _, gone := errors.AsType[*sqstypes.QueueDoesNotExist](err); gone {
		return nil, nil
	}
	if err != nil {
		return nil, p.explain(err)
	}
	return out.Attributes, nil
}

// Unsubscribe implements [provider.Cleaner]: it removes the subscriptions of the queue and then the queue, so that it can be tried again if
// it fails in between. When the queue is gone, what subscription is left of it to the site's topic is removed.
func (p *Provider) Unsubscribe(ctx context.Context, s site.ID, sub provider.Subscription) error {
	if err := p.open(); err != nil {
		return err
	}
	defer p.rest()
	if !strings.HasPrefix(sub.Name, p.names.queues(s)) {
		return fmt.Errorf("aws: remove the queue %q: it is not one of site %v, whose names begin with %q", sub.Name, s, p.names.queues(s))
	}
	if _, ok := p.names.instance(s, sub.Name); !ok {
		return nil // no instance has such a name
	}
	url, err := p.find(ctx, sub.Name)
	if err != nil {
		return err
	}
	out, err := p.clients.sns.CreateTopic(ctx, &sns.CreateTopicInput{Name: aws.String(p.names.topic(s))}) // tells the ARN
	if err != nil {
		return p.explain(err)
	}
	topics := []string{aws.ToString(out.TopicArn)}
	queue := queueARN(topics[0], sub.Name)
	if url != "" {
		attributes, err := p.attributes(ctx, url, sqstypes.QueueAttributeNamePolicy)
		if err != nil {
			return err
		}
		for _, t := range topicsOf(attributes[attributePolicy]) { // those of other sites
			if !slices.Contains(topics, t) {
				topics = append(topics, t)
			}
		}
	}
	for _, t := range topics {
		if err := p.unsubscribeFrom(ctx, t, queue); err != nil {
			return err
		}
	}
	if url == "" {
		return nil
	}
	return p.deleteQueue(ctx, url)
}

// unsubscribeFrom removes the subscriptions of a queue to a topic.
func (p *Provider) unsubscribeFrom(ctx context.Context, topic, queue string) error {
	pages := sns.NewListSubscriptionsByTopicPaginator(p.clients.sns, &sns.ListSubscriptionsByTopicInput{TopicArn: &topic})
	var found []string
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if _, gone := errors.AsType[*snstypes.NotFoundException](err); gone {
			return nil
		}
		if err != nil {
			return p.explain(err)
		}
		for _, s := range page.Subscriptions {
			if aws.ToString(s.Endpoint) == queue {
				found = append(found, aws.ToString(s.SubscriptionArn))
			}
		}
	}
	for _, arn := range found { // only now: a list that shrinks while it is read may leave some out
		if err := p.unsubscribe(ctx, arn); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provider) unsubscribe(ctx context.Context, arn string) error {
	_, err := p.clients.sns.Unsubscribe(ctx, &sns.UnsubscribeInput{SubscriptionArn: &arn})
	if _, gone := errors.AsType[*snstypes.NotFoundException](err); err == nil || gone {
		return nil
	}
	return p.explain(err)
}

func (p *Provider) deleteQueue(ctx context.Context, url string) error {
	_, err := p.clients.sqs.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &url})
	if _, gone := errors.AsType[*sqstypes.QueueDoesNotExist](err); err == nil || gone {
		return nil
	}
	return p.explain(err)
}

// find returns the URL of a queue, or none if it is gone.
func (p *Provider) find(ctx context.Context, queue string) (string, error) {
	out, err := p.clients.sqs.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &queue})
	if _, gone := errors.AsType[*sqstypes.QueueDoesNotExist](err); gone {
		return "", nil
	}
	if err != nil {
		return "", p.explain(err)
	}
	return aws.ToString(out.QueueUrl), nil
}

func (p *Provider) open() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return provider.ErrClosed
	}
	return nil
}

// rest closes the connections of one who is not started, and so perhaps never closed.
func (p *Provider) rest() {
	if _, ok := p.keeper.Link(); !ok {
		p.clients.close()
	}
}
