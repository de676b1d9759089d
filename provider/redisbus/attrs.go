package redisbus

// Keys of log attributes.
const (
	keyServer  = "server"
	keyChannel = "channel"
	keyFrom    = "from"
)
