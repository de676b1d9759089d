package emulator

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The administration speaks ATOM: entries and feeds of XML, at the path of an entity.
type entry struct {
	XMLName xml.Name `xml:"http://www.w3.org/2005/Atom entry"`
	Title   string   `xml:"title"`
	Content content  `xml:"content"`
}

type feed struct {
	XMLName xml.Name `xml:"http://www.w3.org/2005/Atom feed"`
	Title   string   `xml:"title"`
	Entries []entry  `xml:"entry"`
}

type content struct {
	Type         string       `xml:"type,attr"`
	Topic        *description `xml:"TopicDescription"`
	Subscription *description `xml:"SubscriptionDescription"`
}

// A description is that of a topic or of a subscription, as far as it matters here.
type description struct {
	LockDuration             string        `xml:",omitempty"`
	DefaultMessageTimeToLive string        `xml:",omitempty"`
	DefaultRuleDescription   *rule         `xml:",omitempty"`
	MaxDeliveryCount         int           `xml:",omitempty"`
	SizeInBytes              int           `xml:",omitempty"`
	MessageCount             *int          `xml:",omitempty"`
	UserMetadata             string        `xml:",omitempty"`
	AutoDeleteOnIdle         string        `xml:",omitempty"`
	CreatedAt                string        `xml:",omitempty"`
	UpdatedAt                string        `xml:",omitempty"`
	AccessedAt               string        `xml:",omitempty"`
	CountDetails             *countDetails `xml:",omitempty"`
}

type rule struct {
	Filter struct {
		Type          string `xml:"http://www.w3.org/2001/XMLSchema-instance type,attr"`
		SQLExpression string `xml:"SqlExpression"`
	}
	Name string
}

type countDetails struct {
	ActiveMessageCount, DeadLetterMessageCount, ScheduledMessageCount, TransferMessageCount, TransferDeadLetterMessageCount int
}

// An apiError is an answer that is none.
type apiError struct {
	status int
	detail string
}

func (a *apiError) Error() string { return a.detail }

func refusal(status int, format string, args ...any) error {
	return &apiError{status, fmt.Sprintf(format, args...)}
}

// ServeHTTP answers a request of the administration client.
func (e *Emulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	e.mu.Lock()
	e.operations.Admin++
	e.operations.Units++
	answer, err := e.administer(r, body)
	e.mu.Unlock()
	status := http.StatusOK
	if r.Method == http.MethodPut {
		status = http.StatusCreated
	}
	if err != nil {
		status = http.StatusInternalServerError
		if a, ok := err.(*apiError); ok {
			status = a.status
		}
		answer = struct {
			XMLName xml.Name `xml:"Error"`
			Code    int
			Detail  string
		}{Code: status, Detail: err.Error()}
	}
	w.Header().Set("Content-Type", "application/xml; charset=utf-8")
	w.WriteHeader(status)
	if answer != nil {
		xml.NewEncoder(w).Encode(answer)
	}
}

func (e *Emulator) administer(r *http.Request, body []byte) (any, error) {
	name, ok := e.authenticate(r.Header.Get("Authorization"))
	switch {
	case !ok:
		return nil, refusal(401, "InvalidSignature: The token has an invalid signature.")
	case e.keys[name].rights&Manage == 0:
		return nil, refusal(401, "Unauthorized access. 'Manage' claim(s) are required to perform this operation.")
	}
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	t := e.topics[strings.ToLower(path[0])]
	if len(path) == 1 {
		return e.administerTopic(r.Method, path[0], t, body)
	}
	if !strings.EqualFold(path[1], "subscriptions") || len(path) > 3 {
		return nil, refusal(400, "Nothing is at %s.", r.URL.Path)
	}
	if t == nil {
		return nil, refusal(404, "The messaging entity '%s' could not be found.", path[0])
	}
	if len(path) == 2 {
		return t.listing(r), nil
	}
	return e.administerSubscription(r.Method, t, path[2], body)
}

func (e *Emulator) administerTopic(method, name string, t *topic, body []byte) (any, error) {
	switch {
	case method == http.MethodPut && t != nil:
		return nil, refusal(409, "SubCode=40900. Conflict: the entity '%s' already exists.", name)
	case method == http.MethodPut:
		d, err := read(body, func(c content) *description { return c.Topic })
		if err != nil {
			return nil, err
		}
		if len(name) > 260 {
			return nil, refusal(400, "The entity path/name '%s' exceeds the 260 character limit.", name)
		}
		t = &topic{name: name, created: e.now(), metadata: d.UserMetadata, subs: make(map[string]*subscription)}
		if t.ttl, err = duration(d.DefaultMessageTimeToLive, 14*24*time.Hour); err != nil {
			return nil, err
		}
		e.topics[strings.ToLower(name)] = t
	case t == nil:
		return nil, refusal(404, "The messaging entity '%s' could not be found.", name)
	case method == http.MethodDelete:
		for _, s := range t.subs {
			e.remove(s)
		}
		for c := range e.conns {
			for _, s := range c.sessions {
				for _, l := range s.links {
					if l.topic == t {
						l.detach(fault("amqp:not-found", "The messaging entity '"+t.name+"' could not be found."))
					}
				}
			}
		}
		delete(e.topics, strings.ToLower(name))
		return nil, nil
	}
	return entry{Title: t.name, Content: content{Type: "application/xml", Topic: &description{
		DefaultMessageTimeToLive: iso(t.ttl), SizeInBytes: t.size(), UserMetadata: t.metadata, CreatedAt: t.created.UTC().Format(time.RFC3339Nano),
	}}}, nil
}

func (e *Emulator) administerSubscription(method string, t *topic, name string, body []byte) (any, error) {
	s := t.subs[strings.ToLower(name)]
	switch {
	case method == http.MethodPut && s != nil:
		return nil, refusal(409, "SubCode=40900. Conflict: the entity '%s' already exists.", name)
	case method == http.MethodPut:
		d, err := read(body, func(c content) *description { return c.Subscription })
		if err != nil {
			return nil, err
		}
		if s, err = e.newSubscription(t, name, d); err != nil {
			return nil, err
		}
		t.subs[strings.ToLower(name)] = s
	case s == nil:
		return nil, refusal(404, "The messaging entity '%s/Subscriptions/%s' could not be found.", t.name, name)
	case method == http.MethodDelete:
		e.remove(s)
		return nil, nil
	}
	return s.entry(), nil
}

func (e *Emulator) newSubscription(t *topic, name string, d *description) (s *subscription, err error) {
	if len(name) > 50 {
		return nil, refusal(400, "The entity path/name '%s' exceeds the 50 character limit.", name)
	}
	s = &subscription{
		topic: t, name: name, metadata: d.UserMetadata, maxDelivered: uint32(d.MaxDeliveryCount), locked: make(map[uuid]*lock),
		created: e.now(), used: e.now(), rule: "$Default", accepts: always(yes),
	}
	if s.ttl, err = duration(d.DefaultMessageTimeToLive, 14*24*time.Hour); err != nil {
		return nil, err
	}
	if s.lock, err = duration(d.LockDuration, time.Minute); err != nil {
		return nil, err
	}
	if s.idle, err = duration(d.AutoDeleteOnIdle, 0); err != nil {
		return nil, err
	}
	switch {
	case s.idle > 0 && s.idle < 5*time.Minute:
		return nil, refusal(400, "The value for AutoDeleteOnIdle must be at least 5 minutes.")
	case s.lock < 5*time.Second || s.lock > 5*time.Minute:
		return nil, refusal(400, "The value for LockDuration must be between 5 seconds and 5 minutes.")
	case len(s.metadata) > 1024:
		return nil, refusal(400, "UserMetadata exceeds 1024 characters.")
	}
	if s.maxDelivered == 0 {
		s.maxDelivered = 10
	}
	if e.options.LockDuration > 0 {
		s.lock = e.options.LockDuration
	}
	if r := d.DefaultRuleDescription; r != nil {
		s.rule, s.sql = r.Name, r.Filter.SQLExpression
		switch r.Filter.Type {
		case "TrueFilter":
		case "SqlFilter":
			if s.accepts, err = parseFilter(s.sql); err != nil {
				return nil, refusal(400, "The filter is not understood: %v.", err)
			}
		default:
			return nil, refusal(400, "No %q is known here.", r.Filter.Type)
		}
	}
	return s, nil
}

func read(body []byte, of func(content) *description) (*description, error) {
	var in entry
	if err := xml.Unmarshal(body, &in); err != nil {
		return nil, refusal(400, "The body is not understood: %v.", err)
	}
	if d := of(in.Content); d != nil {
		return d, nil
	}
	return nil, refusal(400, "The body holds no description.")
}

func (s *subscription) entry() entry {
	count := len(s.waiting) + len(s.locked)
	return entry{Title: s.name, Content: content{Type: "application/xml", Subscription: &description{
		LockDuration: iso(s.lock), DefaultMessageTimeToLive: iso(s.ttl), MaxDeliveryCount: int(s.maxDelivered), MessageCount: &count,
		UserMetadata: s.metadata, AutoDeleteOnIdle: iso(s.idle), CreatedAt: s.created.UTC().Format(time.RFC3339Nano),
		UpdatedAt: s.created.UTC().Format(time.RFC3339Nano), AccessedAt: s.used.UTC().Format(time.RFC3339Nano),
		CountDetails: &countDetails{ActiveMessageCount: count, DeadLetterMessageCount: s.deadLettered},
	}}}
}

// listing returns a page of at most 100 subscriptions.
func (t *topic) listing(r *http.Request) feed {
	all := make([]*subscription, 0, len(t.subs))
	for _, s := range t.subs {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *subscription) int { return strings.Compare(strings.ToLower(a.name), strings.ToLower(b.name)) })
	number := func(key string, otherwise int) int {
		for k, v := range r.URL.Query() { // the SDK writes two question marks
			if n, err := strconv.Atoi(v[0]); err == nil && strings.TrimLeft(k, "?") == key {
				return max(0, n)
			}
		}
		return otherwise
	}
	all = all[min(number("$skip", 0), len(all)):]
	all = all[:min(len(all), 100, number("$top", 100))]
	page := feed{Title: "Subscriptions"}
	for _, s := range all {
		page.Entries = append(page.Entries, s.entry())
	}
	return page
}

// duration reads what ISO 8601 calls one, as far as days and shorter go.
func duration(s string, otherwise time.Duration) (time.Duration, error) {
	if s == "" {
		return otherwise, nil
	}
	rest, ok := strings.CutPrefix(s, "P")
	total, inTime := time.Duration(0), false
	for ok && rest != "" {
		if rest[0] == 'T' && !inTime {
			inTime, rest = true, rest[1:]
			continue
		}
		n := 0
		for n < len(rest) && (rest[n] >= '0' && rest[n] <= '9' || rest[n] == '.') {
			n++
		}
		value, err := strconv.ParseFloat(rest[:n], 64)
		if err != nil || n == len(rest) {
			break
		}
		unit := map[string]time.Duration{"D": 24 * time.Hour, "TH": time.Hour, "TM": time.Minute, "TS": time.Second}
		key := rest[n : n+1]
		if inTime {
			key = "T" + key
		}
		if unit[key] == 0 {
			break
		}
		total += time.Duration(value * float64(unit[key]))
		rest = rest[n+1:]
	}
	if !ok || rest != "" || total <= 0 {
		return 0, refusal(400, "%q is no duration.", s)
	}
	return total, nil
}

// iso writes a duration as ISO 8601 does.
func iso(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("PT%gS", d.Seconds())
}
