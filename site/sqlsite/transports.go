package sqlsite

import (
	"encoding/json"
	"time"

	"github.com/carillon-go/carillon/site"
)

// storedTransports is [site.Transports] as they are in their column.
type storedTransports struct {
	Receive []string `json:"receive,omitempty"`
	Send    []string `json:"send,omitempty"`
	From    []string `json:"from,omitempty"`
	To      []string `json:"to,omitempty"`
	Back    bool     `json:"back,omitempty"`
	UntilMS *int64   `json:"until_ms,omitempty"` // since 1970
	Changed uint64   `json:"changed,omitempty"`
}

func encodeTransports(t site.Transports) (string, error) {
	b, err := json.Marshal(storedTransports{t.Receive, t.Send, t.From, t.To, t.Back, untilMS(t.Until), t.Changed})
	return string(b), err
}

// decodeTransports reads what [encodeTransports] wrote; nothing is the zero Transports. Unlike the addresses of a
// member, what somebody spoiled is an error: an instance that took it for nothing would go back to the transports
// of its configuration, alone.
func decodeTransports(name string, text *string) (site.Transports, error) {
	if text == nil {
		return site.Transports{}, nil
	}
	var s storedTransports
	if err := json.Unmarshal([]byte(*text), &s); err != nil {
		return site.Transports{}, finding("the transports of site %q cannot be read: %w", name, err)
	}
	t := site.Transports{Receive: s.Receive, Send: s.Send, From: s.From, To: s.To, Back: s.Back, Changed: s.Changed}
	if s.UntilMS != nil {
		t.Until = time.UnixMilli(*s.UntilMS)
	}
	if err := t.Check(); err != nil {
		return site.Transports{}, finding("the transports of site %q cannot be used: %w", name, err)
	}
	return t, nil
}
