package emulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/go-amqp"
)

// Rights are what a key may do.
type Rights uint8

// Manage includes the others at the service, and does not here.
const (
	Send Rights = 1 << iota
	Listen
	Manage
	All = Send | Listen | Manage
)

type credential struct {
	secret string
	rights Rights
}

// bearer is how tokens are kept among the keys.
const bearer = "bearer "

// authenticate returns the name of the key that a token was signed with, or of the token of an identity.
func (e *Emulator) authenticate(token string) (name string, ok bool) {
	rest, isSAS := strings.CutPrefix(token, "SharedAccessSignature ")
	if !isSAS {
		_, ok = e.keys[bearer+token]
		return bearer + token, ok
	}
	parts := make(map[string]string)
	for part := range strings.SplitSeq(rest, "&") {
		k, v, _ := strings.Cut(part, "=")
		parts[k] = v
	}
	key, ok := e.keys[parts["skn"]]
	if !ok {
		return "", false
	}
	mac := hmac.New(sha256.New, []byte(key.secret))
	mac.Write([]byte(parts["sr"] + "\n" + parts["se"]))
	want := url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	expires, err := strconv.ParseInt(parts["se"], 10, 64)
	return parts["skn"], err == nil && expires > time.Now().Unix() && hmac.Equal([]byte(want), []byte(parts["sig"]))
}

// open connects a link with what its address names, or says why that is refused.
func (e *Emulator) open(l *link) *described {
	refuse := func(condition, text string) *described { d := fault(condition, text); return &d }
	if l.address == "$cbs" {
		return nil
	}
	entity, isManagement := management(l.address)
	t, s := e.find(entity)
	if t == nil {
		return refuse("amqp:not-found", "The messaging entity '"+entity+"' could not be found.")
	}
	if isManagement {
		return nil
	}
	if t.disabled {
		return refuse("com.microsoft:entity-disabled", "Messaging entity '"+entity+"' is currently disabled.")
	}
	want, claim := Listen, "Listen"
	if l.sends {
		want, claim = Send, "Send"
	}
	if e.keys[l.session.conn.key].rights&want == 0 {
		return refuse("amqp:unauthorized-access", "Unauthorized access. '"+claim+"' claim(s) are required to perform this operation. Resource: 'sb://localhost/"+entity+"'.")
	}
	switch {
	case l.sends && s == nil:
		l.topic = t
	case !l.sends && s != nil:
		l.sub = s
		s.links = append(s.links, l)
	default:
		return refuse("amqp:not-allowed", "That cannot be done with '"+entity+"'.")
	}
	return nil
}

// refuses says why a topic takes no message now; nil: it does.
func (e *Emulator) refuses(t *topic, bytes int) *described {
	refuse := func(condition, text string) *described { d := rejected(condition, text); return &d }
	switch {
	case e.throttled:
		e.operations.Throttled++
		return refuse("com.microsoft:server-busy", "The request was terminated because the namespace emulator is being throttled. Please wait 10 seconds and try again.")
	case t.disabled:
		return refuse("com.microsoft:entity-disabled", "Messaging entity '"+t.name+"' is currently disabled.")
	case bytes > e.options.MaxMessageBytes:
		return refuse("amqp:link:message-size-exceeded", "The received message is larger than the limit currently allowed on the link.")
	case e.quota > 0 && t.size()+bytes > e.quota:
		return refuse("amqp:resource-limit-exceeded", "The maximum entity size has been reached or exceeded for Topic: '"+t.name+"'.")
	}
	return nil
}

// answer does what a request asks for, and sends the response to the client's receiver in the same session.
func (l *link) answer(m *amqp.Message) {
	e := l.session.conn.e
	code, text, value := int32(400), "The operation is not known here.", any(nil)
	operation, _ := m.ApplicationProperties["operation"].(string)
	entity, _ := management(l.address)
	_, s := e.find(entity)
	body, _ := m.Value.(map[string]any)
	switch {
	case l.address == "$cbs" && operation == "put-token":
		e.operations.Tokens++
		token, _ := m.Value.(string)
		code, text = 401, "InvalidSignature: The token has an invalid signature."
		if name, ok := e.authenticate(token); ok {
			l.session.conn.key = name
			code, text = 200, "OK"
		}
	case s != nil && e.keys[l.session.conn.key].rights&Listen == 0:
		code, text = 401, "Unauthorized access. 'Listen' claim(s) are required to perform this operation."
	case s != nil && operation == "com.microsoft:peek-message":
		e.operations.Peeks++
		e.operations.Units++
		s.used = e.now()
		code, text = 204, "No content"
		if len(s.waiting) > 0 {
			b, err := s.waiting[0].at(nil).MarshalBinary()
			if err == nil {
				code, text = 200, "OK"
				value = map[string]any{"messages": []any{map[string]any{"message": b}}}
			}
		}
	case s != nil && operation == "com.microsoft:update-disposition":
		code, text = 410, "The lock supplied is invalid."
		tokens, _ := body["lock-tokens"].([]amqp.UUID)
		for _, token := range tokens {
			if k := s.locked[tagOf(token)]; k != nil && body["disposition-status"] == "completed" && e.complete(k) {
				code, text = 200, "OK"
			}
		}
	}
	id := any(nil)
	if m.Properties != nil {
		id = m.Properties.MessageID
	}
	status, description := "statusCode", "statusDescription"
	if l.address == "$cbs" {
		status, description = "status-code", "status-description"
	}
	for _, back := range l.session.links {
		if !back.sends && back.address == l.address {
			back.deliver(nil, &amqp.Message{
				Properties:            &amqp.MessageProperties{CorrelationID: id},
				ApplicationProperties: map[string]any{status: code, description: text},
				Value:                 value,
			})
			return
		}
	}
}

// tagOf returns the delivery tag of a lock token, which has the bytes of its first three numbers in the other order.
func tagOf(token amqp.UUID) uuid {
	t := uuid(token)
	slices.Reverse(t[0:4])
	slices.Reverse(t[4:6])
	slices.Reverse(t[6:8])
	return t
}
