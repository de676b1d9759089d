// Package zmq carries events through ZeroMQ PUB/SUB. It needs libzmq and cgo, and therefore the build tag
// zmq; without it there is only the system's name.
package zmq

const (
	name  = "zmq"
	title = "ZeroMQ PUB/SUB"
)

// note says what differs from the library's own settings.
const note = "high-water marks 0: nothing is dropped, whatever memory that takes; XPUB, which is PUB that tells who has " +
	"subscribed; at most once"
