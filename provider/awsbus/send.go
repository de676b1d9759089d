package awsbus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/aws/smithy-go"
)

// publish sends frames to a topic.
func (l *link) publish(ctx context.Context, topic, to string, frames [][]byte) error {
	bodies := pack(frames)
	for len(bodies) > 0 {
		n, size := 0, 0
		for n < len(bodies) && n < maxBatch && size+len(bodies[n])+attributeBytes <= maxMessageBytes {
			size += len(bodies[n]) + attributeBytes
			n++
		}
		if err := l.publishBodies(ctx, topic, string(l.p.own), to, bodies[:n]); err != nil {
			return err
		}
		bodies = bodies[n:]
	}
	return nil
}

const (
	entryAttempts = 3
	entryPause    = 50 * time.Millisecond
)

// publishBodies sends messages in one call, and once more those of them that SNS has not taken.
func (l *link) publishBodies(ctx context.Context, topic, from, to string, bodies []string) error {
	p := l.p
	ctx, cancel := context.WithTimeoutCause(ctx, p.times.answer, errNoAnswer)
	defer cancel()
	text := func(s string) types.MessageAttributeValue {
		return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &s}
	}
	attributes := map[string]types.MessageAttributeValue{attrFrom: text(from), attrTo: text(to)}
	entries := make([]types.PublishBatchRequestEntry, len(bodies))
	for i := range bodies {
		entries[i] = types.PublishBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), Message: &bodies[i], MessageAttributes: attributes}
	}
	for attempt := 1; ; attempt++ {
		out, err := p.clients.sns.PublishBatch(ctx, &sns.PublishBatchInput{TopicArn: &topic, PublishBatchRequestEntries: entries})
		if err != nil {
			if context.Cause(ctx) == errNoAnswer {
				err = fmt.Errorf("%w: %w", errNoAnswer, err)
			}
			err = p.explain(err)
			if _, gone := errors.AsType[*types.NotFoundException](err); gone {
				l.end(err) // the subscriptions went with the topic
			}
			return err
		}
		if len(out.Failed) == 0 {
			return nil
		}
		first := out.Failed[0]
		if attempt == entryAttempts || first.SenderFault {
			return p.explain(&smithy.OperationError{ServiceID: "SNS", OperationName: "PublishBatch",
				Err: &smithy.GenericAPIError{Code: aws.ToString(first.Code), Message: aws.ToString(first.Message)}})
		}
		failed := make(map[string]bool)
		for _, f := range out.Failed {
			failed[aws.ToString(f.Id)] = true
		}
		var again []types.PublishBatchRequestEntry
		for _, e := range entries {
			if failed[*e.Id] {
				again = append(again, e)
			}
		}
		entries = again
		if err := pause(ctx, time.Duration(attempt)*entryPause); err != nil {
			return p.explain(err)
		}
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
