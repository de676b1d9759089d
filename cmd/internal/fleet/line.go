package fleet

import "github.com/carillon-go/carillon/examples/cms"

// An instance is told what to do by single words on its standard input, one a
// line, and the end of its standard input means that the parent is gone.
const (
	wordNotice = "notice" // post a notice
	wordCut    = "cut"    // cut the network
	wordHeal   = "heal"   // connect it again
	wordStop   = "stop"   // shut down and say goodbye
)

// A line is what an instance writes on its standard output: JSON with one of
// the fields set.
type line struct {
	Ready    bool          `json:"ready,omitempty"` // in step, enabled and listening
	Cut      *bool         `json:"cut,omitempty"`   // the network has been cut, or connected
	Report   *cms.Report   `json:"report,omitempty"`
	Counters *cms.Counters `json:"counters,omitempty"`
	Fail     string        `json:"fail,omitempty"` // why it cannot start or go on
}

// maxLine bounds one line in either direction.
const maxLine = 64 << 10
