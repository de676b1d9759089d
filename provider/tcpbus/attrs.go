package tcpbus

// Keys of log attributes.
const (
	keyAddress    = "address"
	keyAdvertised = "advertised"
	keyStream     = "stream"
	keyReason     = "reason"
	keyRefused    = "refused"
	keyDropped    = "dropped"
	keyConnected  = "connected"
	keyDialled    = "dialled"
	keyQueued     = "queued"
	keyError      = "error"
)
