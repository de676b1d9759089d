package providertest

import (
	"errors"
	"slices"

	"github.com/carillon-go/carillon/provider"
)

func checkSendTo(c *check) {
	u, ok := c.network.Providers[0].(provider.Unicaster)
	if !ok {
		return
	}
	c.start()
	c.meet()
	for to := 1; to < len(c.eps); to++ {
		frames := c.frames(0, laneOne, 50, smallFrame)
		send := c.sendTo(u, c.eps[to].Stream())
		c.carryWith(0, frames, []int{to}, send)
		if err := send(nil); err != nil {
			c.errorf("SendTo of an empty batch: %v; want nil", err)
		}
		c.carry(0, c.frames(0, laneAll, 1, smallFrame)) // whatever went astray is there when this is
		c.quiet()
		for i, e := range c.eps {
			if i != to && slices.ContainsFunc(e.Frames(), func(f []byte) bool {
				return slices.ContainsFunc(frames, func(g []byte) bool { return string(f) == string(g) })
			}) {
				c.errorf("what was sent to provider %d alone was delivered at provider %d", to, i)
			}
		}
	}
}

func checkSendToUnknown(c *check) {
	u, ok := c.network.Providers[0].(provider.Unicaster)
	if !ok {
		return
	}
	c.start()
	c.meet()
	err := c.sendTo(u, newStream())(c.frames(0, laneLoose, 1, smallFrame))
	if !errors.Is(err, provider.ErrUnreachable) {
		c.errorf("SendTo a stream that nobody has: %v; want ErrUnreachable", err)
	}
	c.carry(0, c.frames(0, laneAll, 1, smallFrame))
}

func checkNewStream(c *check) {
	c.start()
	c.meet()
	e := c.eps[1]
	e.mu.Lock()
	e.stream = newStream()
	e.mu.Unlock()
	c.introduce()
	c.meet()
	c.carry(0, c.frames(0, laneAll, 10, smallFrame))
	c.carry(1, c.frames(1, laneAll, 10, smallFrame))
	if u, ok := c.network.Providers[0].(provider.Unicaster); ok {
		send := c.sendTo(u, e.Stream())
		// It may take the transport a moment to find the new stream; until then it says so.
		if !Eventually(c.network.Patience, func() bool {
			return !errors.Is(send(c.frames(0, laneLoose, 1, smallFrame)), provider.ErrUnreachable)
		}) {
			c.fatalf("%v after SetMembers with a new stream, SendTo says that it is unreachable", c.network.Patience)
		}
		c.carryWith(0, c.frames(0, laneOne, 10, smallFrame), []int{1}, send)
	}
}

func checkAddresses(c *check) {
	a, ok := c.network.Providers[0].(provider.Advertiser)
	if !ok {
		return
	}
	c.start()
	first := slices.Clone(a.Addresses())
	if len(first) == 0 || slices.Contains(first, "") {
		c.errorf("Addresses() = %q after Start; want at least one, none of them empty", first)
	}
	c.meet()
	c.carry(0, c.frames(0, laneAll, 10, smallFrame))
	if second := a.Addresses(); !slices.Equal(first, second) {
		c.errorf("Addresses() was %q and later %q", first, second)
	}
}

// The members that are told here do not exist; their addresses are those of an
// instance that has closed.
func checkSetMembersDoesNotBlock(c *check) {
	w, ok := c.network.Providers[0].(provider.MemberWatcher)
	if !ok {
		return
	}
	c.start()
	gone := c.eps[2].Member()
	if err := c.within("Close", c.eps[2].Close); err != nil {
		c.errorf("Close: %v", err)
	}
	members := provider.Members{Self: c.eps[0].Stream()}
	for range 300 {
		gone.Stream = newStream()
		members.Others = append(members.Others, gone)
	}
	before := slices.Clone(members.Others)
	c.within("SetMembers with 300 members that do not answer", func() error { w.SetMembers(members); return nil })
	for i := range before {
		if before[i].Stream != members.Others[i].Stream {
			c.errorf("SetMembers changed the list of members, which is read-only")
			break
		}
	}
	c.introduce()
	c.meetAmong(0, 1)
	c.carry(0, c.frames(0, laneAll, 10, smallFrame), 1)
}
