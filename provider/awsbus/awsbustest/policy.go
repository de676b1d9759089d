package awsbustest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// A filter says by its attributes which messages a subscription takes: for each name, one of the conditions must hold.
type filter map[string][]condition

// A condition is an exact value, or all but some.
type condition struct {
	is     string
	not    []string
	butFor bool
}

// parseFilter reads a filter policy, as far as it is known here: exact strings and anything-but.
func parseFilter(policy string) (filter, error) {
	var raw map[string][]json.RawMessage
	if err := json.Unmarshal([]byte(policy), &raw); err != nil {
		return nil, err
	}
	f := make(filter)
	for name, conditions := range raw {
		for _, c := range conditions {
			var is string
			if json.Unmarshal(c, &is) == nil {
				f[name] = append(f[name], condition{is: is})
				continue
			}
			var but map[string][]string
			if err := json.Unmarshal(c, &but); err != nil {
				return nil, err
			}
			not, ok := but["anything-but"]
			if !ok || len(but) != 1 {
				return nil, fmt.Errorf("the emulator knows no %s", c)
			}
			f[name] = append(f[name], condition{not: not, butFor: true})
		}
		if len(f[name]) == 0 {
			return nil, errors.New("empty list")
		}
	}
	return f, nil
}

// takes reports whether a message matches. An attribute that is missing matches nothing.
func (f filter) takes(attributes map[string]attribute) bool {
	for name, conditions := range f {
		a, ok := attributes[name]
		if !ok || !slices.ContainsFunc(conditions, func(c condition) bool {
			if c.butFor {
				return !slices.Contains(c.not, a.StringValue)
			}
			return c.is == a.StringValue
		}) {
			return false
		}
	}
	return true
}

// strs is a string, or several.
type strs []string

// UnmarshalJSON implements [json.Unmarshaler].
func (s *strs) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*s = strs{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(s))
}

// A queuePolicy says who may send to a queue.
type queuePolicy struct {
	Version   string
	Statement []struct {
		Sid       string
		Effect    string
		Principal map[string]strs
		Action    strs
		Resource  strs
		Condition map[string]map[string]strs
	}
}

// letsIn reports whether a topic may send to the queue. Without a policy nobody may.
func (q *queue) letsIn(topic, self string) bool {
	for _, s := range q.policy.Statement {
		sources, limited := s.Condition["ArnEquals"]["aws:SourceArn"]
		if s.Effect == "Allow" && slices.Contains(s.Principal["Service"], "sns.amazonaws.com") && slices.Contains(s.Action, "sqs:SendMessage") &&
			slices.Contains(s.Resource, self) && (limited && slices.Contains(sources, topic) || len(s.Condition) == 0) {
			return true
		}
	}
	return false
}

// envelope is a message as a subscription without raw delivery has it.
func envelope(id, topic string, m entry) string {
	b, err := json.Marshal(map[string]string{"Type": "Notification", "MessageId": id, "TopicArn": topic, "Message": m.body})
	if err != nil {
		panic(err)
	}
	return string(b)
}
