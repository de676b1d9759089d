// Package zmq carries events through ZeroMQ PUB/SUB. It needs libzmq and cgo, and therefore the build tag
// zmq; without it there is only the system's name.
package zmq

const (
	name  = "zmq"
	title = "ZeroMQ PUB/SUB"

	note = "XPUB, which is PUB that tells who has subscribed, with XPUB_NODROP: the publisher waits instead of dropping; " +
		"high-water marks of 100,000 events instead of 1,000; at most once"
)
