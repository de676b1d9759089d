package awsbus

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"github.com/carillon-go/carillon/site"
)

const (
	maxQueueName  = 80
	instanceBytes = 16 // random
	siteLen       = 36
	instanceLen   = 26
	maxShort      = maxQueueName - siteLen - instanceLen - 2
	hashBytes     = 10 // 16 characters
)

// letters is the alphabet of what is not for people. It has no digits that look like letters.
var letters = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// An instanceID tells apart the instances of a site. It ends the name of its queue and is in the attributes of messages.
type instanceID string

func newInstanceID() instanceID {
	var b [instanceBytes]byte
	rand.Read(b[:])
	return instanceID(letters.EncodeToString(b[:]))
}

func (id instanceID) valid() bool {
	b, err := letters.DecodeString(string(id))
	return err == nil && len(b) == instanceBytes && len(id) == instanceLen
}

// names makes the names of topics and queues.
type names struct {
	prefix string // of topics
	short  string // of queues; prefix, or its hash where there is no room for it
}

func newNames(prefix string) names {
	n := names{prefix: prefix, short: prefix}
	if len(prefix) > maxShort {
		hash := sha256.Sum256([]byte(prefix))
		n.short = letters.EncodeToString(hash[:hashBytes])
	}
	return n
}

// topic is the name of a site's topic.
func (n names) topic(s site.ID) string { return n.prefix + "-" + s.String() }

// queues is what the names of all queues of a site begin with, and of no other.
func (n names) queues(s site.ID) string { return n.short + "-" + s.String() + "-" }

// queue is the name of an instance's queue.
func (n names) queue(s site.ID, id instanceID) string { return n.queues(s) + string(id) }

// instance returns whose queue of site s has a name, and false if none has.
func (n names) instance(s site.ID, queue string) (instanceID, bool) {
	id, ok := strings.CutPrefix(queue, n.queues(s))
	return instanceID(id), ok && instanceID(id).valid()
}
