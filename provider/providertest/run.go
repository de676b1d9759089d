package providertest

import "testing"

// Rules that the suite watches in every check, whatever the check is about.
const (
	ruleBytes      = "frames are immutable from the moment they cross the interface, in either direction, for ever"
	ruleEchoes     = "Capabilities.Echoes: an instance also receives what it sent, and only then"
	ruleOrdered    = "Capabilities.Ordered: frames of one sender arrive in the order sent"
	ruleRedelivers = "Capabilities.Redelivers: without it no frame arrives more than once in normal operation"
	ruleSerial     = "batches of one connection are delivered one after the other"
	ruleClose      = "Close stops the transport: no Deliver begins after it has returned; closing twice is fine"
	ruleLeak       = "Close waits for the goroutines the Provider started, and a failed Start leaves nothing behind"
)

// entry is one check: what it is called, the sentence of the contract that
// it takes at its word, and how many endpoints it needs.
type entry struct {
	name      string
	rule      string
	endpoints int
	fn        func(*check)
}

// checks returns all of them. The order is that in which an author would want
// to make them pass.
func checks() []entry {
	return []entry{
		{"Name", "Name is the short name that operators know the transport by, unique among the providers of one Broker", 2, checkName},
		{"Capabilities", "Capabilities never change during the Provider's life and do not contradict each other", 1, checkCapabilities},
		{"Subscribed", "when Start returns nil, frames that others send from now on arrive", 3, checkSubscribed},
		{"AllOthers", "Send hands the frames to the transport for all other instances", 4, checkAllOthers},
		{"Order", ruleOrdered, 3, checkOrder},
		{"Echoes", ruleEchoes, 2, checkEchoes},
		{"FrameLimit", "Capabilities.MaxFrameBytes is the largest frame Send accepts; above it the error is ErrFrameTooLarge", 2, checkFrameLimit},
		{"Batches", "Send takes any number of frames, none included", 2, checkBatches},
		{"BatchSliceIsTheCallers", "the slice that holds a batch belongs to the caller and may be reused when the call returns", 2, checkBatchSlice},
		{"FramesAreImmutable", ruleBytes, 2, checkImmutable},
		{"Done", "Done is called exactly once, by the Broker: before Deliver returns, after it, or after Close", 2, checkDone},
		{"Resume", "Batch.Resume: what follows is delivered from another goroutine, and Close does not wait for the Deliver that runs", 2, checkResume},
		{"Serial", ruleSerial, 3, checkSerial},
		{"ConcurrentUse", "the Broker calls Send and SendTo one at a time each, and the other methods from any goroutine", 3, checkConcurrentUse},

		{"StartContextEnded", "ctx bounds Start: when it has ended, Start fails with its error and leaves nothing behind", 2, checkStartContextEnded},
		{"StartContextBoundsStartAlone", "ctx bounds Start alone", 2, checkStartContextBoundsStartAlone},
		{"StartFails", "a failed Start leaves nothing behind", 1, checkStartFails},
		{"StartWithoutAnswer", "ctx bounds Start, also when the transport does not answer", 1, checkStartWithoutAnswer},
		{"SendContext", "Send returns when its ctx ends, and an ended ctx is not a closed Provider", 2, checkSendContext},

		{"CloseFlushes", "what Send had accepted is flushed by Close", 2, checkCloseFlushes},
		{"CloseTwice", "Closing twice is fine, concurrently too, and both wait", 2, checkCloseTwice},
		{"CloseUnstarted", "a Provider that was never started can be closed", 1, checkCloseUnstarted},
		{"SendAfterClose", "from Close on, Send and SendTo return ErrClosed", 2, checkSendAfterClose},
		{"CloseEndsWaitingSend", "for calls already waiting when Close is called, Send returns ErrClosed", 2, checkCloseEndsWaitingSend},
		{"CloseWaitsForDeliver", "Close waits for the Deliver that runs; none begins after it has returned", 2, checkCloseWaitsForDeliver},
		{"CloseUnderLoad", "no Deliver begins after Close has returned, however much arrives", 3, checkCloseUnderLoad},
		{"CloseOfOneLeavesOthers", "one instance that is gone does not hold up the others", 3, checkCloseOfOne},

		{"SendTo", "SendTo is Send for one instance", 3, checkSendTo},
		{"SendToUnknown", "ErrUnreachable means that the transport knows no way to the instance", 2, checkSendToUnknown},
		{"NewStream", "Members.Self changes when the instance takes a new stream", 3, checkNewStream},
		{"Addresses", "Addresses is called after Start, and the answer stays true until Close", 2, checkAddresses},
		{"SetMembersDoesNotBlock", "SetMembers must not block on the network", 3, checkSetMembersDoesNotBlock},

		{"Subscriptions", "Subscriptions lists what instances of a site have at the service, each once, and nothing of any other site; Close removes it", 3, checkSubscriptions},
		{"Unsubscribe", "Unsubscribe removes the one of this very name; one that is gone already is no error", 3, checkUnsubscribe},
		{"SubscriptionRemoved", "an instance whose subscription was removed makes it again under the same name, and calls Reconnected", 2, checkSubscriptionRemoved},

		{"SlowReceiver", "one instance that is slow does not hold up the others", 3, checkSlowReceiver},
		{"Prompt", "Capabilities.Prompt: Send and SendTo wait neither for a receiver nor for another goroutine", 2, checkPrompt},
		{"BackPressure", "Capabilities.BackPressure: Send blocks while receivers are slow, instead of dropping", 2, checkBackPressure},
		{"ReceiveBuffer", "Env.ReceiveBuffer: so much is kept for this instance while a Deliver runs", 2, checkReceiveBuffer},
		{"Garbage", "what strangers write harms nobody; with SecureChannel it is not even delivered", 2, checkGarbage},
		{"CutAndHealed", "a link that was away comes back by itself; what was lost meanwhile is told through Reconnected", 3, checkCutAndHealed},
		{"Durable", "Capabilities.Durable: frames survive a restart of the transport's own servers", 2, checkDurable},
	}
}

// Run runs the suite, one subtest per rule. Each failure names the sentence of the
// contract that was broken and how. Rules that h gives no means to check are
// skipped by returning early; see [Network].
func Run(t *testing.T, h Harness) {
	for _, entry := range checks() {
		t.Run(entry.name, func(t *testing.T) {
			for _, p := range entry.problems(t, h) {
				t.Error(p)
			}
		})
	}
}
