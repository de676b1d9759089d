package pgbus

// Keys of log attributes.
const (
	keyError  = "error"
	keyFrames = "frames"
	keyTable  = "table"
)
