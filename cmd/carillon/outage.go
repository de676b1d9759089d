package main

import (
	"fmt"
	"time"

	"github.com/carillon-go/carillon"
)

// lookEvery is how often a command that runs on asks how the transports are. An outage that is shorter may go unnoticed.
const lookEvery = 250 * time.Millisecond

// outages know which transports carry nothing, by name, and since when: that one is away is logged as a warning, that it is back
// is not. The zero value knows of none.
type outages map[string]time.Time

// ended notes how the transports are, and returns a line for each that was away and is back. One that is not used any more is
// not back.
func (o *outages) ended(now time.Time, stats []carillon.ProviderStats) (lines []string) {
	away := outages{}
	for _, p := range stats {
		if !p.FailingSince.IsZero() {
			away[p.Name] = p.FailingSince
			continue
		}
		if since, ok := (*o)[p.Name]; ok {
			lines = append(lines, fmt.Sprintf("%s is back after %v", p.Name, roughly(now.Sub(since))))
		}
	}
	*o = away
	return lines
}

// roughly rounds d for people.
func roughly(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}
