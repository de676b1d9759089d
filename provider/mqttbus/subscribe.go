package mqttbus

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// settle subscribes, and tries the rights that are needed.
func (l *link) settle(ctx context.Context, answer *paho.Connack) error {
	p, own := l.p, l.p.toAll(l.env.Site)
	if err := l.accepts(answer.Properties); err != nil {
		return err
	}
	if !answer.SessionPresent {
		p.settled, p.topics = false, make(map[string]bool)
		// With No Local nobody knows whether he may read: mosquitto confirms what it then does not carry. Nor does it
		// change a subscription that there is, so that one goes before No Local.
		if err := l.subscribe(ctx, []string{own}, false); err != nil {
			return err
		}
		if err := l.try(ctx, own); err != nil {
			return err
		}
		if err := l.read(ctx, own); err != nil {
			return err
		}
		if err := l.unsubscribe(ctx, []string{own}); err != nil {
			return err
		}
	}
	if err := l.follow(ctx, true); err != nil {
		return err
	}
	if answer.SessionPresent {
		return l.try(ctx, own)
	}
	return nil
}

// accepts reports what keeps this instance from working with a server that has these properties.
func (l *link) accepts(is *paho.ConnackProperties) error {
	if is.MaximumQoS != nil && *is.MaximumQoS < 1 {
		return l.trouble(connecting, "it carries messages with QoS 0 only, which may be lost anywhere", "allow QoS 1 there (mosquitto: max_qos)", nil)
	}
	needed := l.p.cfg.capabilities.MaxFrameBytes + l.overhead()
	if is.MaximumPacketSize != nil && *is.MaximumPacketSize < uint32(needed) {
		what := fmt.Sprintf("it takes packets of %d bytes, and frames here have up to %d", *is.MaximumPacketSize, l.p.cfg.capabilities.MaxFrameBytes)
		remedy := fmt.Sprintf("raise its limit to %d (mosquitto: max_packet_size)", needed)
		if fits := int(*is.MaximumPacketSize) - l.overhead(); fits >= minFrameBytes {
			remedy += fmt.Sprintf(", or set MaxFrameBytes to %d", fits)
		}
		return l.trouble(connecting, what, remedy, nil)
	}
	return nil
}

// overhead is what a message has beside its frame, at most.
func (l *link) overhead() int {
	const streamText = 20 + 1 + 16 // a stream at its longest
	return 5 + 2 + len(l.p.toAll(l.env.Site)) + len("to/") + streamText + 2 + 1
}

// wanted returns the topics that this instance listens to: those of the sites it accepts, of every further site whose instances have turned
// up, and its own, once it is known.
func (l *link) wanted(m *members) []string {
	var topics []string
	for _, s := range l.env.Sites {
		topics = append(topics, l.p.toAll(s))
	}
	if m != nil {
		topics = append(topics, l.p.toOne(l.env.Site, m.self))
		for _, s := range m.sites {
			topics = append(topics, l.p.toAll(s))
		}
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}

// follow subscribes to what is wanted and was not yet, or to all of it again, and leaves what is wanted no more.
func (l *link) follow(ctx context.Context, again bool) error {
	p, m := l.p, l.p.members.Load()
	wanted := l.wanted(m)
	missing := slices.DeleteFunc(slices.Clone(wanted), func(t string) bool { return p.topics[t] && !again })
	if err := l.subscribe(ctx, missing, true); err != nil {
		return err
	}
	if m != nil {
		select {
		case <-m.followed:
		default:
			close(m.followed)
		}
	}
	var stale []string
	for t := range p.topics {
		if !slices.Contains(wanted, t) {
			stale = append(stale, t)
		}
	}
	return l.unsubscribe(ctx, stale)
}

// unsubscribe returns when the server has confirmed that it forgets the topics.
func (l *link) unsubscribe(ctx context.Context, topics []string) error {
	if len(topics) == 0 {
		return nil
	}
	if _, err := l.client.Unsubscribe(ctx, &paho.Unsubscribe{Topics: topics}); err != nil {
		return l.explain(subscribing, l.why(ctx, err))
	}
	for _, t := range topics {
		delete(l.p.topics, t)
	}
	return nil
}

// subscribe returns when the server has confirmed all of the topics.
func (l *link) subscribe(ctx context.Context, topics []string, noLocal bool) error {
	if len(topics) == 0 {
		return nil
	}
	s := new(paho.Subscribe)
	for _, t := range topics {
		s.Subscriptions = append(s.Subscriptions, paho.SubscribeOptions{Topic: t, QoS: 1, NoLocal: noLocal, RetainHandling: 2}) // 2: nothing old
	}
	answer, err := l.client.Subscribe(ctx, s)
	if answer == nil {
		return l.explain(subscribing, l.why(ctx, err))
	}
	if len(answer.Reasons) != len(topics) {
		return l.trouble(subscribing, fmt.Sprintf("it answered for %d of %d topics", len(answer.Reasons), len(topics)), "see its log", nil)
	}
	for i, code := range answer.Reasons {
		switch {
		case code >= 0x80:
			return l.explain(subscribing, &refusal{code, answer.Properties.ReasonString})
		case code == packets.SubackGrantedQoS0:
			return l.trouble(subscribing, "it grants QoS 0 only, with which messages may be lost anywhere", "allow QoS 1 there", nil)
		}
		l.p.topics[topics[i]] = true
	}
	return nil
}

// try publishes a message without contents, which shows whether this instance may publish. Others ignore it.
func (l *link) try(ctx context.Context, topic string) error {
	_, err := l.publish(ctx, topic, [][]byte{nil}, l.mark)
	return err
}

// read waits for what try published to come back.
func (l *link) read(ctx context.Context, topic string) error {
	patience := time.NewTimer(l.p.readingWithin)
	defer patience.Stop()
	select {
	case <-l.heard:
		return nil
	case <-patience.C:
		return l.trouble(subscribing, fmt.Sprintf("it confirmed the subscription, but carries nothing of %q to this instance", topic), "let the user read it: "+l.grant(), nil)
	case <-l.flight.lost:
		return l.explain(subscribing, errLost)
	case <-ctx.Done():
		return l.explain(subscribing, ctx.Err())
	}
}
