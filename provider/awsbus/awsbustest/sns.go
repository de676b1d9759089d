package awsbustest

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A topic hands what is published to its subscriptions.
type topic struct {
	name          string
	subscriptions []*subscription // in the order in which they were made
}

// A subscription is a queue's.
type subscription struct {
	arn, queue string // queue is an ARN
	raw        bool
	filter     filter // nil: everything
	policy     string // filter as it was given
	late       int    // how many messages are still to pass it by
}

// attribute is of a message.
type attribute struct {
	DataType    string
	StringValue string `json:",omitempty"`
	BinaryValue []byte `json:",omitempty"`
}

const (
	maxMessage   = 256 << 10 // bytes, attributes included; of a batch too
	maxEntries   = 10
	pageOfList   = 100
	arnPrefixSNS = "arn:aws:sns:"
	arnPrefixSQS = "arn:aws:sqs:"
)

var topicName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,256}$`)

func invalid(format string, args ...any) error {
	return &Fault{Code: "InvalidParameter", Message: "Invalid parameter: " + fmt.Sprintf(format, args...)}
}

// sns does what an operation of SNS says and returns what its result holds.
func (e *Emulator) sns(name string, form url.Values) (any, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch name {
	case "CreateTopic":
		return e.createTopicLocked(form)
	case "DeleteTopic":
		e.deleteTopicLocked(form.Get("TopicArn"))
		return nil, nil
	case "Subscribe":
		return e.subscribeLocked(form)
	case "Unsubscribe":
		return nil, e.unsubscribeLocked(form.Get("SubscriptionArn"))
	case "GetSubscriptionAttributes":
		return e.subscriptionAttributesLocked(form.Get("SubscriptionArn"))
	case "ListSubscriptionsByTopic":
		return e.listSubscriptionsLocked(form)
	case "PublishBatch":
		return e.publishBatchLocked(form)
	}
	return nil, &Fault{Code: "InvalidAction", Message: "The emulator knows no " + strconv.Quote(name)}
}

func (e *Emulator) topicARN(name string) string {
	return arnPrefixSNS + e.opts.Region + ":" + e.opts.Account + ":" + name
}

func (e *Emulator) queueARN(name string) string {
	return arnPrefixSQS + e.opts.Region + ":" + e.opts.Account + ":" + name
}

// idLocked returns what looks like a UUID.
func (e *Emulator) idLocked() string {
	e.next++
	return fmt.Sprintf("00000000-0000-4000-8000-%012x", e.next)
}

func (e *Emulator) createTopicLocked(form url.Values) (any, error) {
	name := form.Get("Name")
	if !topicName.MatchString(name) {
		return nil, invalid("Topic Name")
	}
	if e.topics[name] == nil {
		e.topics[name] = &topic{name: name}
	}
	return struct{ TopicArn string }{e.topicARN(name)}, nil
}

// deleteTopicLocked deletes a topic and its subscriptions.
func (e *Emulator) deleteTopicLocked(arn string) {
	if t, err := e.findTopicLocked(arn); err == nil {
		delete(e.topics, t.name)
	}
}

// DeleteTopics deletes all topics and their subscriptions, as by hand. Queues remain.
func (e *Emulator) DeleteTopics() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.topics)
}

// Unsubscribe deletes the subscriptions of a queue, as by hand.
func (e *Emulator) Unsubscribe(queue string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unsubscribeQueueLocked(e.queueARN(queue))
}

func (e *Emulator) unsubscribeQueueLocked(arn string) {
	for _, t := range e.topics {
		t.subscriptions = slices.DeleteFunc(t.subscriptions, func(s *subscription) bool { return s.queue == arn })
	}
}

// Subscriptions returns how many there are to the topics.
func (e *Emulator) Subscriptions() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, t := range e.topics {
		n += len(t.subscriptions)
	}
	return n
}

func (e *Emulator) findTopicLocked(arn string) (*topic, error) {
	name, ok := strings.CutPrefix(arn, e.topicARN(""))
	if t := e.topics[name]; ok && t != nil {
		return t, nil
	}
	return nil, &Fault{http.StatusNotFound, "NotFound", "Topic does not exist"}
}

// members returns the map that a form holds under prefix, such as "Attributes.entry.", with keys under key and values under value.
func members(form url.Values, prefix, key, value string) map[string]string {
	all := make(map[string]string)
	for i := 1; ; i++ {
		p := prefix + strconv.Itoa(i) + "."
		if !form.Has(p + key) {
			return all
		}
		all[form.Get(p+key)] = form.Get(p + value)
	}
}

func (e *Emulator) subscribeLocked(form url.Values) (any, error) {
	t, err := e.findTopicLocked(form.Get("TopicArn"))
	if err != nil {
		return nil, err
	}
	attributes := members(form, "Attributes.entry.", "key", "value")
	endpoint := form.Get("Endpoint")
	if form.Get("Protocol") != "sqs" || !strings.HasPrefix(endpoint, arnPrefixSQS) {
		return nil, invalid("SQS endpoint ARN")
	}
	s := &subscription{queue: endpoint, raw: attributes["RawMessageDelivery"] == "true", policy: attributes["FilterPolicy"], late: e.opts.LateSubscriptions}
	if s.policy != "" {
		if s.filter, err = parseFilter(s.policy); err != nil {
			return nil, invalid("FilterPolicy: %v", err)
		}
	}
	filtered := 0
	for _, old := range t.subscriptions {
		if old.queue == endpoint {
			if old.raw != s.raw || old.policy != s.policy {
				return nil, invalid("Attributes Reason: Subscription already exists with different attributes")
			}
			return struct{ SubscriptionArn string }{old.arn}, nil
		}
		if old.filter != nil {
			filtered++
		}
	}
	if s.filter != nil && filtered >= e.opts.FilterPolicies {
		return nil, &Fault{http.StatusForbidden, "FilterPolicyLimitExceeded", "Filter policy limit exceeded"}
	}
	s.arn = e.topicARN(t.name) + ":" + e.idLocked()
	t.subscriptions = append(t.subscriptions, s)
	return struct{ SubscriptionArn string }{s.arn}, nil
}

func (e *Emulator) unsubscribeLocked(arn string) error {
	if !strings.HasPrefix(arn, arnPrefixSNS) {
		return invalid("SubscriptionArn")
	}
	for _, t := range e.topics {
		t.subscriptions = slices.DeleteFunc(t.subscriptions, func(s *subscription) bool { return s.arn == arn })
	}
	return nil
}

type xmlEntry struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

func (e *Emulator) subscriptionAttributesLocked(arn string) (any, error) {
	for _, t := range e.topics {
		for _, s := range t.subscriptions {
			if s.arn == arn {
				return struct {
					Entries []xmlEntry `xml:"Attributes>entry"`
				}{[]xmlEntry{{"TopicArn", e.topicARN(t.name)}, {"Endpoint", s.queue}, {"FilterPolicy", s.policy}}}, nil
			}
		}
	}
	return nil, &Fault{http.StatusNotFound, "NotFound", "Subscription does not exist"}
}

type xmlSubscription struct {
	SubscriptionArn, Owner, Protocol, Endpoint, TopicArn string
}

func (e *Emulator) listSubscriptionsLocked(form url.Values) (any, error) {
	t, err := e.findTopicLocked(form.Get("TopicArn"))
	if err != nil {
		return nil, err
	}
	from, _ := strconv.Atoi(form.Get("NextToken"))
	from = min(max(from, 0), len(t.subscriptions))
	to := min(from+pageOfList, len(t.subscriptions))
	var r struct {
		Subscriptions []xmlSubscription `xml:"Subscriptions>member"`
		NextToken     string            `xml:",omitempty"`
	}
	for _, s := range t.subscriptions[from:to] {
		r.Subscriptions = append(r.Subscriptions, xmlSubscription{s.arn, e.opts.Account, "sqs", s.queue, e.topicARN(t.name)})
	}
	if to < len(t.subscriptions) {
		r.NextToken = strconv.Itoa(to)
	}
	return r, nil
}

// An entry is a message of a batch.
type entry struct {
	id, body   string
	attributes map[string]attribute
	size       int
}

func parseEntries(form url.Values) ([]entry, error) {
	var all []entry
	ids, total := make(map[string]bool), 0
	for i := 1; ; i++ {
		p := "PublishBatchRequestEntries.member." + strconv.Itoa(i) + "."
		if !form.Has(p + "Id") {
			break
		}
		m := entry{id: form.Get(p + "Id"), body: form.Get(p + "Message"), attributes: make(map[string]attribute)}
		if ids[m.id] {
			return nil, &Fault{Code: "BatchEntryIdsNotDistinct", Message: "Two or more batch entries in the request have the same Id"}
		}
		ids[m.id] = true
		m.size = len(m.body)
		for j := 1; ; j++ {
			q := p + "MessageAttributes.entry." + strconv.Itoa(j) + "."
			if !form.Has(q + "Name") {
				break
			}
			a := attribute{DataType: form.Get(q + "Value.DataType"), StringValue: form.Get(q + "Value.StringValue")}
			a.BinaryValue, _ = base64.StdEncoding.DecodeString(form.Get(q + "Value.BinaryValue"))
			m.attributes[form.Get(q+"Name")] = a
			m.size += len(form.Get(q+"Name")) + len(a.DataType) + len(a.StringValue) + len(a.BinaryValue)
		}
		total += m.size
		all = append(all, m)
	}
	switch {
	case len(all) == 0:
		return nil, &Fault{Code: "EmptyBatchRequest", Message: "The batch request doesn't contain any entries"}
	case len(all) > maxEntries:
		return nil, &Fault{Code: "TooManyEntriesInBatchRequest", Message: "The batch request contains more entries than permissible"}
	case total > maxMessage:
		return nil, &Fault{Code: "BatchRequestTooLong", Message: "The length of all the batch messages put together is more than the limit"}
	}
	return all, nil
}

// readable reports whether a text may be a message.
func readable(s string) bool {
	return s != "" && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff
	})
}

func (e *Emulator) publishBatchLocked(form url.Values) (any, error) {
	t, err := e.findTopicLocked(form.Get("TopicArn"))
	if err != nil {
		return nil, err
	}
	entries, err := parseEntries(form)
	if err != nil {
		return nil, err
	}
	type success struct {
		ID        string `xml:"Id"`
		MessageID string `xml:"MessageId"`
	}
	type failure struct {
		ID            string `xml:"Id"`
		Code, Message string
		SenderFault   bool
	}
	var r struct {
		Successful []success `xml:"Successful>member"`
		Failed     []failure `xml:"Failed>member"`
	}
	for i, m := range entries {
		switch {
		case e.failsLocked("sns:PublishBatch", i):
			r.Failed = append(r.Failed, failure{m.id, "InternalError", "not this one", false})
		case !readable(m.body):
			r.Failed = append(r.Failed, failure{m.id, "InvalidParameter", "Invalid parameter: Message", true})
		default:
			e.fanOutLocked(t, m)
			r.Successful = append(r.Successful, success{m.id, e.idLocked()})
		}
	}
	return r, nil
}

// fanOutLocked hands a message to every subscription that wants it.
func (e *Emulator) fanOutLocked(t *topic, m entry) {
	for _, s := range t.subscriptions {
		if s.filter != nil && !e.opts.LateFilters && !s.filter.takes(m.attributes) {
			continue
		}
		if s.late > 0 {
			s.late--
			continue
		}
		name, _ := strings.CutPrefix(s.queue, e.queueARN(""))
		q := e.queues[name]
		if q == nil || !q.letsIn(e.topicARN(t.name), s.queue) {
			continue // as there: it is lost, and nobody is told
		}
		body, attributes := m.body, m.attributes
		if !s.raw {
			body, attributes = envelope(e.idLocked(), e.topicARN(t.name), m), nil
		} else if len(attributes) > 10 {
			continue
		}
		q.putLocked(e.idLocked(), body, attributes)
	}
}

func writeXML(w http.ResponseWriter, name string, result any, err error) {
	w.Header().Set("Content-Type", "text/xml")
	var out any
	if err != nil {
		f := faultOf(err)
		w.WriteHeader(f.Status)
		out = struct {
			XMLName   xml.Name `xml:"ErrorResponse"`
			Type      string   `xml:"Error>Type"`
			Code      string   `xml:"Error>Code"`
			Message   string   `xml:"Error>Message"`
			RequestID string   `xml:"RequestId"`
		}{Type: "Sender", Code: f.Code, Message: f.Message, RequestID: "00000000"}
	} else {
		out = xmlResponse{name, result}
	}
	b, err := xml.Marshal(out)
	if err != nil {
		panic(err)
	}
	w.Write(b)
}

// An xmlResponse has elements named after its operation.
type xmlResponse struct {
	name   string
	result any
}

// MarshalXML implements [xml.Marshaler].
func (r xmlResponse) MarshalXML(enc *xml.Encoder, _ xml.StartElement) error {
	outer := xml.StartElement{Name: xml.Name{Local: r.name + "Response"}}
	if err := enc.EncodeToken(outer); err != nil {
		return err
	}
	if r.result != nil {
		if err := enc.EncodeElement(r.result, xml.StartElement{Name: xml.Name{Local: r.name + "Result"}}); err != nil {
			return err
		}
	}
	metadata := xml.StartElement{Name: xml.Name{Local: "ResponseMetadata"}}
	if err := enc.EncodeElement(struct {
		RequestID string `xml:"RequestId"`
	}{"00000000"}, metadata); err != nil {
		return err
	}
	return enc.EncodeToken(outer.End())
}
