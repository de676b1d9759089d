package awsbus

// Keys of log attributes.
const (
	keyQueue  = "queue"
	keyTopic  = "topic"
	keyRegion = "region"
	keyError  = "error"
)
