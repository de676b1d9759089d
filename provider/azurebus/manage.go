package azurebus

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

const (
	// lockDuration is how long a message that was handed to an instance is kept from being delivered again. Acknowledging takes
	// milliseconds; after a connection was lost, what was on its way comes again so much later.
	lockDuration = 30 * time.Second

	// maxDeliveries is how often a message may be delivered before the service puts it aside. Nobody looks there, so it should not happen.
	maxDeliveries = 1000

	removeTimeout = time.Second
	pageSize      = 100
	ruleName      = "carillon"
)

// markOf is what tells the subscriptions of instances of a site from others on the same topic.
func markOf(s site.ID) string { return "carillon instance of site " + s.String() }

// ruleOf lets a subscription have what others send to all, and what is sent to it.
func ruleOf(subscription string) *admin.RuleProperties {
	return &admin.RuleProperties{Name: ruleName, Filter: &admin.SQLFilter{Expression: fmt.Sprintf(
		"user.%s <> '%s' AND (user.%s IS NULL OR user.%s = '%s')", propertyFrom, subscription, propertyTo, propertyTo, subscription)}}
}

// make creates the topic and the subscription of each site that is accepted, as far as they do not exist.
func (p *Provider) make(ctx context.Context, env provider.Env) error {
	c, closed, err := p.cfg.manager()
	if err != nil {
		return err
	}
	defer closed()
	seconds := func(d time.Duration) *string { return to.Ptr("PT" + strconv.Itoa(int(d.Seconds())) + "S") }
	for _, s := range accepted(env) {
		topic := topicOf(p.cfg.prefix, s)
		subscribe := func() error {
			_, err := c.CreateSubscription(ctx, topic, p.cfg.subscription, &admin.CreateSubscriptionOptions{Properties: &admin.SubscriptionProperties{
				LockDuration:                     seconds(lockDuration),
				DefaultMessageTimeToLive:         seconds(p.cfg.timeToLive),
				AutoDeleteOnIdle:                 seconds(p.cfg.deleteWhenIdle),
				MaxDeliveryCount:                 to.Ptr(int32(maxDeliveries)),
				DeadLetteringOnMessageExpiration: to.Ptr(false),
				EnableBatchedOperations:          to.Ptr(true),
				UserMetadata:                     to.Ptr(markOf(s)),
				DefaultRule:                      ruleOf(p.cfg.subscription),
			}})
			return except(err, http.StatusConflict)
		}
		err := subscribe()
		if hasStatus(err, http.StatusNotFound) { // the first instance of this site makes the topic
			if err := p.makeTopic(ctx, c, topic); err != nil {
				return err
			}
			err = subscribe()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *Provider) makeTopic(ctx context.Context, c *admin.Client, topic string) error {
	_, err := c.CreateTopic(ctx, topic, &admin.CreateTopicOptions{Properties: &admin.TopicProperties{
		DefaultMessageTimeToLive: to.Ptr("PT" + strconv.Itoa(int(p.cfg.timeToLive.Seconds())) + "S"),
		EnableBatchedOperations:  to.Ptr(true),
		UserMetadata:             to.Ptr("carillon"),
	}})
	return except(err, http.StatusConflict)
}

// unmake removes the subscriptions that make created, for a second at most: what is left, the service removes when it was idle for long enough.
func (p *Provider) unmake(env provider.Env) {
	ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
	defer cancel()
	for _, s := range accepted(env) {
		if p.remove(ctx, topicOf(p.cfg.prefix, s), p.cfg.subscription) != nil {
			return
		}
	}
}

// remove removes a subscription. One that is not there is none.
func (p *Provider) remove(ctx context.Context, topic, subscription string) error {
	c, closed, err := p.cfg.manager()
	if err != nil {
		return err
	}
	defer closed()
	_, err = c.DeleteSubscription(ctx, topic, subscription, nil)
	return except(err, http.StatusNotFound)
}

// Subscriptions implements [provider.Cleaner]. It needs the right to manage. Subscriptions on the topic that were made by others than instances, or by hand, are
// not among them.
func (p *Provider) Subscriptions(ctx context.Context, s site.ID) ([]provider.Subscription, error) {
	c, closed, err := p.cfg.manager()
	if err != nil {
		return nil, p.explain(err)
	}
	defer closed()
	topic, mark := topicOf(p.cfg.prefix, s), markOf(s)
	ours := make(map[string]bool)
	for pager := c.NewListSubscriptionsPager(topic, &admin.ListSubscriptionsOptions{MaxPageSize: pageSize}); pager.More(); {
		page, err := pager.NextPage(ctx)
		if hasStatus(err, http.StatusNotFound) {
			return nil, nil // no instance of the site was ever there
		}
		if err != nil {
			return nil, p.explain(err)
		}
		for _, item := range page.Subscriptions {
			if item.UserMetadata != nil && *item.UserMetadata == mark {
				ours[item.SubscriptionName] = true
			}
		}
	}
	// When they were made, the service tells in another listing only. One that has come between the two is told of the next time.
	var found []provider.Subscription
	for pager := c.NewListSubscriptionsRuntimePropertiesPager(topic, &admin.ListSubscriptionsRuntimePropertiesOptions{MaxPageSize: pageSize}); pager.More(); {
		page, err := pager.NextPage(ctx)
		if hasStatus(err, http.StatusNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, p.explain(err)
		}
		for _, item := range page.SubscriptionRuntimeProperties {
			if ours[item.SubscriptionName] {
				delete(ours, item.SubscriptionName)
				found = append(found, provider.Subscription{Name: item.SubscriptionName, Created: item.CreatedAt})
			}
		}
	}
	return found, nil
}

// Unsubscribe implements [provider.Cleaner]. It needs the right to manage.
func (p *Provider) Unsubscribe(ctx context.Context, s site.ID, sub provider.Subscription) error {
	if !isName(sub.Name, maxSubscriptionName) {
		return nil // none has such a name, and the SDK would put it into a path as it is
	}
	return p.explain(p.remove(ctx, topicOf(p.cfg.prefix, s), sub.Name))
}

// hasStatus reports whether the administration has answered with status.
func hasStatus(err error, status int) bool {
	answer, ok := errors.AsType[*azcore.ResponseError](err)
	return ok && answer.StatusCode == status
}

// except returns err, or nil if it is that the administration has answered with status.
func except(err error, status int) error {
	if hasStatus(err, status) {
		return nil
	}
	return err
}
