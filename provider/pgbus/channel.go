package pgbus

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"github.com/carillon-go/carillon/site"
)

// maxNameBytes is how long a name may be in PostgreSQL. LISTEN would cut a longer one, without an error.
const maxNameBytes = 63

// toAll is the channel of all instances of a site.
func (s *settings) toAll(of site.ID) string { return channel(s.prefix + ":" + of.String() + ":all") }

// toOne is the channel of one instance.
func (s *settings) toOne(of site.ID, stream site.StreamID) string {
	return channel(s.prefix + ":" + of.String() + ":to:" + stream.String())
}

// channel returns name, or what stands for it if it is too long. The sign is in no prefix, so the two kinds never meet.
func channel(name string) string {
	if len(name) <= maxNameBytes {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return "carillon#" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))
}
