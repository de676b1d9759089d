package awsbustest

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A queue keeps messages until they are deleted.
type queue struct {
	name       string
	created    time.Time
	attributes map[string]string
	tags       map[string]string
	policy     queuePolicy
	messages   []*message
	late       int           // calls to receive that are still to be refused
	changed    chan struct{} // closed and replaced when a message comes, or becomes visible, or the queue goes away
}

// A message is in a queue.
type message struct {
	id, body   string
	attributes map[string]attribute
	sent       time.Time
	visible    time.Time // when it can be received again
	receipts   []string  // any of which deletes it
}

// request is what the operations of SQS are asked with.
type request struct {
	QueueName, QueueNamePrefix, NextToken string
	QueueURL                              string `json:"QueueUrl"`
	Attributes                            map[string]string
	Tags                                  map[string]string `json:"tags"`
	MaxResults, MaxNumberOfMessages       int
	WaitTimeSeconds                       int
	AttributeNames, MessageAttributeNames []string
	Entries                               []struct {
		ID            string `json:"Id"`
		ReceiptHandle string
	}
}

var queueName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}$`)

const pageOfQueues = 1000

func noQueue() error {
	return &Fault{Code: "QueueDoesNotExist", Message: "The specified queue does not exist."}
}

// sqs does what an operation of SQS says. A poll ends with stopped.
func (e *Emulator) sqs(r *http.Request, stopped <-chan struct{}, name string, body []byte) (any, error) {
	var in request
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, &Fault{Code: "SerializationException", Message: err.Error()}
	}
	if name == "ReceiveMessage" {
		return e.receive(r, stopped, in)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch name {
	case "CreateQueue":
		return e.createQueueLocked(r, in)
	case "GetQueueUrl":
		q := e.queues[in.QueueName]
		if q == nil {
			return nil, noQueue()
		}
		return e.urlOf(r, q), nil
	case "ListQueues":
		return e.listQueuesLocked(r, in)
	}
	q := e.queues[nameOf(in.QueueURL)]
	if q == nil {
		if name == "DeleteQueue" {
			return nil, nil // as the real one says
		}
		return nil, noQueue()
	}
	switch name {
	case "GetQueueAttributes":
		return e.attributesOf(q, in.AttributeNames), nil
	case "SetQueueAttributes":
		return nil, q.setLocked(in.Attributes)
	case "DeleteQueue":
		e.deleteQueueLocked(q)
		return nil, nil
	case "DeleteMessageBatch":
		return e.deleteMessagesLocked(q, in)
	}
	return nil, &Fault{Code: "InvalidAction", Message: "The emulator knows no " + strconv.Quote(name)}
}

// nameOf returns the name that a queue's URL ends with.
func nameOf(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

func (e *Emulator) urlOf(r *http.Request, q *queue) any {
	return struct {
		QueueURL string `json:"QueueUrl"`
	}{"http://" + r.Host + "/" + e.opts.Account + "/" + q.name}
}

// ranges are what numbers of a queue may be.
var ranges = map[string][2]int{
	"MessageRetentionPeriod":        {60, 14 * 86400},
	"VisibilityTimeout":             {0, 12 * 3600},
	"ReceiveMessageWaitTimeSeconds": {0, 20},
}

// setLocked sets attributes. e.mu is held.
func (q *queue) setLocked(attributes map[string]string) error {
	policy := q.policy
	for name, value := range attributes {
		limits, known := ranges[name]
		n, err := strconv.Atoi(value)
		switch {
		case name == "Policy":
			policy = queuePolicy{}
			if err := json.Unmarshal([]byte(value), &policy); err != nil {
				return &Fault{Code: "InvalidAttributeValue", Message: "Invalid value for the parameter Policy."}
			}
		case !known:
			return &Fault{Code: "InvalidAttributeName", Message: "Unknown Attribute " + name + "."}
		case err != nil || n < limits[0] || n > limits[1]:
			return &Fault{Code: "InvalidAttributeValue", Message: "Invalid value for the parameter " + name + "."}
		}
	}
	q.policy = policy
	maps.Copy(q.attributes, attributes)
	return nil
}

func (e *Emulator) createQueueLocked(r *http.Request, in request) (any, error) {
	if !queueName.MatchString(in.QueueName) {
		return nil, &Fault{Code: "InvalidParameterValue", Message: "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"}
	}
	if q := e.queues[in.QueueName]; q != nil {
		for name, value := range in.Attributes {
			if q.attributes[name] != value {
				return nil, &Fault{Code: "QueueNameExists", Message: "A queue already exists with the same name and a different value for attribute " + name}
			}
		}
		return e.urlOf(r, q), nil
	}
	if at, ok := e.deleted[in.QueueName]; ok && time.Since(at) < e.opts.DeletedRecently {
		return nil, &Fault{Code: "QueueDeletedRecently", Message: "You must wait 60 seconds after deleting a queue before you can create another with the same name."}
	}
	q := &queue{name: in.QueueName, created: time.Now(), attributes: map[string]string{"VisibilityTimeout": "30", "MessageRetentionPeriod": "345600"},
		tags: in.Tags, late: e.opts.LateQueues, changed: make(chan struct{})}
	if err := q.setLocked(in.Attributes); err != nil {
		return nil, err
	}
	e.queues[in.QueueName] = q
	return e.urlOf(r, q), nil
}

func (e *Emulator) deleteQueueLocked(q *queue) {
	delete(e.queues, q.name)
	e.deleted[q.name] = time.Now()
	q.changedLocked()
}

// DeleteQueue deletes a queue, as by hand.
func (e *Emulator) DeleteQueue(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if q := e.queues[name]; q != nil {
		e.deleteQueueLocked(q)
	}
}

// Queues returns the names of all queues, sorted.
func (e *Emulator) Queues() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.queues))
}

// Queue returns attributes and tags of a queue, and how many messages are in it, received or not. Nil where there is no such queue.
func (e *Emulator) Queue(name string) (attributes, tags map[string]string, messages int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	q := e.queues[name]
	if q == nil {
		return nil, nil, 0
	}
	return maps.Clone(q.attributes), maps.Clone(q.tags), len(q.messages)
}

// SetPolicy replaces the policy of a queue, as by hand.
func (e *Emulator) SetPolicy(name, policy string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.queues[name].setLocked(map[string]string{"Policy": policy})
}

func (e *Emulator) attributesOf(q *queue, names []string) any {
	all := maps.Clone(q.attributes)
	all["QueueArn"] = e.queueARN(q.name)
	all["CreatedTimestamp"] = strconv.FormatInt(q.created.Unix(), 10)
	if !slices.Contains(names, "All") {
		maps.DeleteFunc(all, func(name, _ string) bool { return !slices.Contains(names, name) })
	}
	return struct{ Attributes map[string]string }{all}
}

func (e *Emulator) listQueuesLocked(r *http.Request, in request) (any, error) {
	page := pageOfQueues
	if in.MaxResults > 0 {
		page = min(page, in.MaxResults)
	}
	var out struct {
		QueueUrls []string
		NextToken string `json:",omitempty"`
	}
	for _, name := range slices.Sorted(maps.Keys(e.queues)) {
		if !strings.HasPrefix(name, in.QueueNamePrefix) || name <= in.NextToken {
			continue
		}
		if len(out.QueueUrls) == page {
			if in.MaxResults > 0 { // else it answers with the first page alone
				out.NextToken = nameOf(out.QueueUrls[page-1])
			}
			break
		}
		out.QueueUrls = append(out.QueueUrls, "http://"+r.Host+"/"+e.opts.Account+"/"+name)
	}
	return out, nil
}

// putLocked appends a message. e.mu is held.
func (q *queue) putLocked(id, body string, attributes map[string]attribute) {
	now := time.Now()
	q.messages = append(q.messages, &message{id: id, body: body, attributes: attributes, sent: now, visible: now})
	q.changedLocked()
}

// changedLocked wakes whoever polls. e.mu is held.
func (q *queue) changedLocked() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// Redeliver makes every message visible that was received and not deleted.
func (e *Emulator) Redeliver() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, q := range e.queues {
		for _, m := range q.messages {
			m.visible = time.Time{}
		}
		q.changedLocked()
	}
}

type received struct {
	MessageID                      string `json:"MessageId"`
	ReceiptHandle, Body, MD5OfBody string
	MessageAttributes              map[string]attribute `json:",omitempty"`
}

// receipts is the answer to a call to receive.
type receipts struct {
	Messages []received `json:",omitempty"`
}

// receive answers with messages, or with none when the poll is over.
func (e *Emulator) receive(r *http.Request, stopped <-chan struct{}, in request) (any, error) {
	if in.MaxNumberOfMessages < 1 || in.MaxNumberOfMessages > 10 || in.WaitTimeSeconds < 0 || in.WaitTimeSeconds > 20 {
		return nil, &Fault{Code: "InvalidParameterValue", Message: "MaxNumberOfMessages or WaitTimeSeconds"}
	}
	over := time.NewTimer(time.Duration(in.WaitTimeSeconds) * time.Second)
	defer over.Stop()
	for last := false; ; {
		e.mu.Lock()
		q := e.queues[nameOf(in.QueueURL)]
		if q == nil || q.late > 0 {
			if q != nil {
				q.late--
			}
			e.mu.Unlock()
			return nil, noQueue()
		}
		got, next := e.takeLocked(q, in, time.Now())
		changed := q.changed
		e.mu.Unlock()
		if len(got) > 0 || last {
			return receipts{got}, nil
		}
		again := time.NewTimer(next)
		select {
		case <-changed:
		case <-again.C:
		case <-over.C:
			last = true
		case <-stopped:
			last = true
		case <-r.Context().Done():
			again.Stop()
			return nil, r.Context().Err()
		}
		again.Stop()
	}
}

// takeLocked receives what is visible now, and says when it is worth while to look again.
func (e *Emulator) takeLocked(q *queue, in request, now time.Time) (got []received, next time.Duration) {
	seconds := func(name string) time.Duration {
		n, _ := strconv.Atoi(q.attributes[name])
		return time.Duration(n) * time.Second
	}
	keep, hide := seconds("MessageRetentionPeriod"), seconds("VisibilityTimeout")
	q.messages = slices.DeleteFunc(q.messages, func(m *message) bool { return now.Sub(m.sent) > keep })
	order := slices.Clone(q.messages)
	if e.opts.Reorder {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	next = time.Hour
	for _, m := range order {
		if left := m.visible.Sub(now); left > 0 {
			next = min(next, left)
			continue
		}
		if len(got) == in.MaxNumberOfMessages {
			break
		}
		if e.taken++; e.opts.Repeat == 0 || e.taken%e.opts.Repeat != 0 {
			m.visible = now.Add(hide)
		}
		receipt := fmt.Sprint(m.id, "#", len(m.receipts))
		m.receipts = append(m.receipts, receipt)
		sum := md5.Sum([]byte(m.body))
		attributes := maps.Clone(m.attributes)
		maps.DeleteFunc(attributes, func(name string, _ attribute) bool {
			return !slices.Contains(in.MessageAttributeNames, name) && !slices.Contains(in.MessageAttributeNames, "All")
		})
		got = append(got, received{m.id, receipt, m.body, hex.EncodeToString(sum[:]), attributes})
	}
	return got, next
}

func (e *Emulator) deleteMessagesLocked(q *queue, in request) (any, error) {
	switch {
	case len(in.Entries) == 0:
		return nil, &Fault{Code: "EmptyBatchRequest", Message: "There should be at least one DeleteMessageBatchRequestEntry in the request."}
	case len(in.Entries) > maxEntries:
		return nil, &Fault{Code: "TooManyEntriesInBatchRequest", Message: "Maximum number of entries per request are 10."}
	}
	type success struct {
		ID string `json:"Id"`
	}
	type failure struct {
		ID          string `json:"Id"`
		Code        string
		SenderFault bool
	}
	out := struct {
		Successful []success
		Failed     []failure
	}{[]success{}, []failure{}}
	for i, entry := range in.Entries {
		if e.failsLocked("sqs:DeleteMessageBatch", i) {
			out.Failed = append(out.Failed, failure{entry.ID, "InternalError", false})
			continue
		}
		q.messages = slices.DeleteFunc(q.messages, func(m *message) bool { return slices.Contains(m.receipts, entry.ReceiptHandle) })
		out.Successful = append(out.Successful, success{entry.ID})
	}
	return out, nil
}

func writeJSON(w http.ResponseWriter, result any, err error) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if err != nil {
		f := faultOf(err)
		w.WriteHeader(f.Status)
		result = map[string]string{"__type": "com.amazonaws.sqs#" + f.Code, "message": f.Message}
	} else if result == nil {
		result = struct{}{}
	}
	b, err := json.Marshal(result)
	if err != nil {
		panic(err)
	}
	w.Write(b)
}
