package rabbitbus

import (
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestAcks(t *testing.T) {
	for _, tt := range []struct {
		name string
		done []uint64
		want []uint64 // what is acknowledged after each; 0: nothing
	}{
		{"in order", []uint64{1, 2, 3}, []uint64{1, 2, 3}},
		{"one that is late holds up those after it", []uint64{2, 3, 1, 4}, []uint64{0, 0, 3, 4}},
		{"backwards", []uint64{4, 3, 2, 1}, []uint64{0, 0, 0, 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newAcks()
			var got []uint64
			for _, n := range tt.done {
				a.done(n)
				last, ok := a.take()
				if !ok {
					last = 0
				}
				got = append(got, last)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("done %v: acknowledged %v, want %v", tt.done, got, tt.want)
			}
			if len(a.later) > 0 {
				t.Errorf("%d numbers are kept that are acknowledged", len(a.later))
			}
			if len(a.wake) != 1 {
				t.Error("nobody was woken to acknowledge")
			}
		})
	}
}

func TestOwnTags_AreForgottenSomeTimeAfterTheirLink(t *testing.T) {
	var o ownTags
	now := time.Unix(0, 0)
	if o.has("a", now) {
		t.Error("the zero value knows a tag")
	}
	o.use("a", now)
	if !o.has("a", now.Add(time.Hour)) || o.has("b", now) {
		t.Error("the tag in use is not known, or another one is")
	}
	o.use("b", now)
	o.use("c", now)
	for _, tt := range []struct {
		tag   string
		after time.Duration
		want  bool
	}{{"a", remember - 1, true}, {"a", remember, false}, {"b", remember - 1, true}, {"c", time.Hour, true}} {
		if got := o.has(tt.tag, now.Add(tt.after)); got != tt.want {
			t.Errorf("has(%q) after %v = %t, want %t", tt.tag, tt.after, got, tt.want)
		}
	}
	o.use("d", now.Add(remember))
	if tags := *o.tags.Load(); len(tags) != 2 {
		t.Errorf("%v are kept, want d and c", tags)
	}
}

func TestAlarm_FollowsTheServer(t *testing.T) {
	a := newAlarm(&server{address: "10.0.0.7:5672", vhost: "/"})
	raised := a.raised()
	if a.err() != nil || isClosed(raised) {
		t.Error("it is raised from the beginning")
	}
	for range 2 {
		a.set(amqp.Blocking{Active: true, Reason: "low on disk"})
		if a.err() == nil || !isClosed(raised) || !isClosed(a.raised()) {
			t.Error("it is not raised")
		}
		a.set(amqp.Blocking{Active: true, Reason: "low on memory & low on disk"})
		a.set(amqp.Blocking{})
		a.set(amqp.Blocking{})
		if raised = a.raised(); a.err() != nil || isClosed(raised) {
			t.Error("it is not lowered")
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
