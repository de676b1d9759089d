package awsbus

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

const (
	deleteAttempts = 3
	deletePause    = time.Second // after a call that failed as a whole

	// maxFinished is how many messages a queue lets be received and not deleted; older receipts than those of the last
	// so many are of no use.
	maxFinished = 120_000
)

// finished holds the receipts of messages that are to be deleted. It outlives links. It is safe for concurrent use.
type finished struct {
	wake chan struct{} // holds a token when there may be something to do

	mu       sync.Mutex // guards the fields below
	receipts []receipt  // oldest first
	closed   bool
}

// A receipt deletes a message.
type receipt struct {
	handle   string
	attempts int
}

func newFinished() *finished { return &finished{wake: make(chan struct{}, 1)} }

// add has a message deleted. It may be called at any time; after close it does nothing.
func (f *finished) add(handle string) { f.put(receipt{handle: handle}) }

func (f *finished) put(rs ...receipt) {
	f.mu.Lock()
	if !f.closed {
		f.receipts = append(f.receipts, rs...)
		if over := len(f.receipts) - maxFinished; over > 0 {
			f.receipts = f.receipts[over:]
		}
	}
	f.mu.Unlock()
	f.poke()
}

func (f *finished) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// close forgets everything.
func (f *finished) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed, f.receipts = true, nil
}

// take returns the oldest receipts, as many as one call may have.
func (f *finished) take() []receipt {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(len(f.receipts), maxBatch)
	batch := f.receipts[:n:n]
	f.receipts = f.receipts[n:]
	return batch
}

func (f *finished) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.receipts)
}

// run deletes until ctx ends. A call is made when ten messages are finished, or the first of them has waited for linger. del
// deletes, and returns those that are to be tried again.
func (f *finished) run(ctx context.Context, linger time.Duration, del func(context.Context, []receipt) (again []receipt, err error)) {
	var due <-chan time.Time
	for {
		n := f.count()
		if n > 0 && due == nil {
			due = time.After(linger)
		}
		if n < maxBatch {
			select {
			case <-f.wake:
				continue
			case <-due:
			case <-ctx.Done():
				return
			}
		} else if ctx.Err() != nil {
			return
		}
		due = nil
		batch := f.take()
		if len(batch) == 0 {
			continue
		}
		again, err := del(ctx, batch)
		if err != nil {
			f.put(batch...) // whatever it was, it may be over for the next link
			if pause(ctx, deletePause) != nil {
				return
			}
			continue
		}
		f.put(again...)
	}
}

// deleteMessages deletes up to ten messages. One that fails is tried again, by itself or with others, three times in all; then it comes again and
// has another receipt.
func (l *link) deleteMessages(ctx context.Context, batch []receipt) (again []receipt, err error) {
	if len(batch) == 0 {
		return nil, nil
	}
	p := l.p
	ctx, cancel := context.WithTimeout(ctx, p.times.answer)
	defer cancel()
	entries := make([]types.DeleteMessageBatchRequestEntry, len(batch))
	for i := range batch {
		entries[i] = types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: &batch[i].handle}
	}
	out, err := p.clients.sqs.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &l.made.url, Entries: entries})
	if err != nil {
		return nil, err
	}
	for _, failure := range out.Failed {
		i, err := strconv.Atoi(aws.ToString(failure.Id))
		if err != nil || i < 0 || i >= len(batch) || failure.SenderFault {
			continue // nothing that another attempt would change
		}
		if r := batch[i]; r.attempts+1 < deleteAttempts {
			again = append(again, receipt{r.handle, r.attempts + 1})
		}
	}
	return again, nil
}
