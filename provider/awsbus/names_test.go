package awsbus

import (
	"strings"
	"testing"

	"github.com/carillon-go/carillon/site"
)

func TestNames_FitAndBelongToOneSite(t *testing.T) {
	s := site.ID{1, 2, 3}
	other := s
	other[15] = 9
	long := strings.Repeat("p", maxPrefix)
	for _, tt := range []struct {
		name, prefix string
		hashed       bool
	}{
		{"the default", defaultPrefix, false},
		{"the longest that there is room for", strings.Repeat("p", maxShort), false},
		{"one longer", strings.Repeat("p", maxShort+1), true},
		{"the longest", long, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNames(tt.prefix)
			id := newInstanceID()
			queue := n.queue(s, id)
			if len(queue) > 80 || len(n.topic(s)) > 256 {
				t.Errorf("the queue's name has %d characters, the topic's %d", len(queue), len(n.topic(s)))
			}
			if hashed := !strings.HasPrefix(queue, tt.prefix+"-"); hashed != tt.hashed {
				t.Errorf("the prefix is hashed: %v, want %v", hashed, tt.hashed)
			}
			if got, ok := n.instance(s, queue); !ok || got != id {
				t.Errorf("the instance of %q is %q, %v", queue, got, ok)
			}
			for _, strange := range []string{"", queue + "0", queue[:len(queue)-1], queue[1:], n.queue(other, id), strings.ToUpper(queue)} {
				if _, ok := n.instance(s, strange); ok {
					t.Errorf("%q is taken for a queue of the site", strange)
				}
			}
		})
	}
	if a, b := newNames(long), newNames(long[1:]+"q"); a.short == b.short {
		t.Error("two long prefixes have the same hash")
	}
}

func TestInstanceID_IsRandom(t *testing.T) {
	seen := make(map[instanceID]bool)
	for range 1000 {
		id := newInstanceID()
		if seen[id] || !id.valid() {
			t.Fatalf("%q, the %d-th, is there already, or not valid", id, len(seen))
		}
		seen[id] = true
	}
}

func TestARNs_FollowTheTopics(t *testing.T) {
	const topic = "arn:aws-cn:sns:cn-north-1:123456789012:carillon-x"
	if got, want := queueARN(topic, "q"), "arn:aws-cn:sqs:cn-north-1:123456789012:q"; got != want {
		t.Errorf("queueARN = %q, want %q", got, want)
	}
	if got := queueARN("nonsense", "q"); got != "" {
		t.Errorf("queueARN of nonsense = %q", got)
	}
}
