package fleet

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/carillon-go/carillon/examples/cms"
)

// Actions are what an instance can be told to do. None is called concurrently
// with itself or another.
type Actions struct {
	Notice    func()
	Cut, Heal func()
}

// A Member is the process's own end of the connection with its parent. It is
// safe for concurrent use.
type Member struct {
	now func() time.Time

	mu   sync.Mutex
	out  io.Writer
	fail error // of the first write that failed: the parent is gone

	second     int64 // in which reports were counted
	reports    int
	suppressed map[cms.Kind]uint64
}

// maxReports is how many reports an instance makes in a second. A person cannot
// read more; the rest is counted and summed up in one.
const maxReports = 40

// NewMember returns the end of a process that writes to out.
func NewMember(out io.Writer) *Member {
	return &Member{now: time.Now, out: out, suppressed: map[cms.Kind]uint64{}}
}

// Ready tells that the instance is in step, enabled and listening.
func (m *Member) Ready() { m.write(line{Ready: true}) }

// Fail tells why the instance cannot start or go on.
func (m *Member) Fail(why string) { m.write(line{Fail: why}) }

// IsCut tells whether the network is cut.
func (m *Member) IsCut(cut bool) { m.write(line{Cut: &cut}) }

// Counters tells what was counted.
func (m *Member) Counters(c cms.Counters) { m.write(line{Counters: &c}) }

// Report tells what happened.
func (m *Member) Report(r cms.Report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := m.now().Unix(); now != m.second {
		m.second, m.reports = now, 0
		m.sumUpLocked()
	}
	// Misses are the reason why one watches; they are merged already.
	if m.reports >= maxReports && r.Kind != cms.KindMissed {
		m.suppressed[r.Kind]++
		return
	}
	m.reports++
	m.writeLocked(line{Report: &r})
}

// SumUp tells of the reports that were too many, if there are any.
func (m *Member) SumUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now().Unix() != m.second {
		m.sumUpLocked()
	}
}

func (m *Member) sumUpLocked() {
	for kind, n := range m.suppressed {
		delete(m.suppressed, kind)
		m.writeLocked(line{Report: &cms.Report{At: m.now().UnixMicro(), Kind: cms.KindNote, Event: more(n, kind), Text: "too many in a second to show one by one"}})
	}
}

// more says how many reports of a kind were not made.
func more(n uint64, kind cms.Kind) string {
	return fmt.Sprintf("%d more %s", n, kind)
}

func (m *Member) write(l line) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writeLocked(l)
}

func (m *Member) writeLocked(l line) {
	if m.fail != nil {
		return
	}
	b, err := json.Marshal(l)
	if err != nil || len(b) >= maxLine {
		return // nothing that an instance tells is that long
	}
	_, m.fail = m.out.Write(append(b, '\n'))
}

// Obey reads words from in and does what they say, until the instance shall
// stop. It reports whether the parent asked for it; otherwise the parent is
// gone, or ctx has ended.
func Obey(ctx context.Context, in io.Reader, a Actions) (asked bool) {
	words := make(chan string)
	go func() {
		defer close(words)
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			select {
			case words <- lines.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return false
		case w, ok := <-words:
			if !ok {
				return false
			}
			switch w {
			case wordStop:
				return true
			case wordNotice:
				a.Notice()
			case wordCut:
				a.Cut()
			case wordHeal:
				a.Heal()
			}
		}
	}
}
