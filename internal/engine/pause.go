package engine

import "time"

// A process stands still now and then: it was stopped, its machine was suspended, or its share of a
// processor was used up. When it goes on it has not read yet what others said meanwhile, so that their silence is its
// own. Whoever held it up before is given that time again; else a sender that was away for [stallProgress] would
// go on without all of its receivers at once, and overrun them.
const (
	pauseLeast = 50 * time.Millisecond  // by which a Tick is not late by chance
	pauseGrace = 100 * time.Millisecond // to read what has come meanwhile
)

// notice looks whether this process has stood still until now. It did if nothing came, and what was due was not done.
func (m *Machine) notice(now time.Time) {
	seen := m.seen
	m.seen = now
	s := &m.send
	if s.stalledAt.IsZero() && s.shutAt.IsZero() || seen.IsZero() || now.Sub(seen) < pauseLeast {
		return
	}
	due := m.Next()
	if due.IsZero() || now.Sub(due) < pauseLeast {
		return
	}
	away := min(now.Sub(due), now.Sub(seen)) + pauseGrace
	if !s.stalledAt.IsZero() {
		s.stalledAt = s.stalledAt.Add(away)
	}
	if !s.shutAt.IsZero() {
		s.shutAt = s.shutAt.Add(away)
	}
	for _, p := range m.peers {
		p.ackedAt = p.ackedAt.Add(away)
	}
	m.planShut()
}
