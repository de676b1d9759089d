package wire

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	vectorlist "github.com/carillon-go/carillon/internal/vectors"
)

// These flags are for make fuzz-frames. One seed makes the same frames again.
var (
	mutations    = flag.Int("mutations", 200_000, "how many mutated frames TestMutated decodes")
	mutationSeed = flag.Uint64("mutation-seed", 1, "what TestMutated draws from")
)

// FuzzFrame finds its way by coverage, and pays for it. This runs the same
// assertions without instruments, blindly but many times as fast, on what came
// out of the golden vectors and of FuzzFrame's corpus by mutation.
func TestMutated_FramesNeverBreakTheDecoder(t *testing.T) {
	n := *mutations
	if testing.Short() {
		n /= 10
	}
	m := newMutator(*mutationSeed, frameCorpus(t))
	crashes, accepted := 0, 0
	start := time.Now()
	for i := range n {
		frame := m.next()
		ok, err := tryFrame(frame, m.before)
		if ok {
			accepted++
		}
		if err != nil {
			if crashes++; crashes <= 10 {
				t.Errorf("execution %d of seed %d: %v\nframe %x", i, *mutationSeed, err, frame)
			}
		}
	}
	t.Logf("seed %d: %d of %d accepted, %.0f executions/s", *mutationSeed, accepted, n, float64(n)/time.Since(start).Seconds())
	fmt.Printf("%d executions, %d crashes\n", n, crashes)
}

// tryFrame decodes frame and holds the result against it. scratch is overwritten.
func tryFrame(frame, scratch []byte) (accepted bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	before := append(scratch[:0], frame...)
	h, body, err := decode(frame)
	if !bytes.Equal(frame, before) {
		return false, fmt.Errorf("decoding changed the frame")
	}
	if err != nil {
		return false, nil
	}
	size := len(frame) - HeaderLen
	if got := footprint(reflect.ValueOf(body)); got > 8*size {
		return true, fmt.Errorf("%d bytes became %d", size, got)
	}
	anew := encode(h, body)
	if len(anew) > len(frame) {
		return true, fmt.Errorf("it takes %d bytes anew, %x", len(anew), anew)
	}
	h2, body2, err := decode(anew)
	h2.Length = h.Length
	if err != nil || h2 != h || !equalBodies(body2, body) {
		return true, fmt.Errorf("decoded %+v %+v; encoded anew and decoded: %+v %+v, %v", h, body, h2, body2, err)
	}
	return true, nil
}

// frameCorpus returns the golden vectors, the published ones that do not encrypt, and
// the committed corpus of FuzzFrame.
func frameCorpus(t *testing.T) [][]byte {
	var corpus [][]byte
	for _, v := range vectors() {
		corpus = append(corpus, readHex(t, v.name))
	}
	list, err := vectorlist.Read("../../docs/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range list {
		if b := v.Bytes(); v.Kind == "frame" && len(b) >= HeaderLen+testTrailer && len(b) < 4096 {
			b = bytes.Clone(b[:len(b)-testTrailer])
			binary.BigEndian.PutUint32(b[offLength:], uint32(len(b)))
			corpus = append(corpus, b)
		}
	}
	files, err := filepath.Glob("testdata/fuzz/FuzzFrame/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, quoted, _ := strings.Cut(string(text), "[]byte(")
		frame, err := strconv.Unquote(strings.TrimSuffix(strings.TrimSpace(quoted), ")"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		corpus = append(corpus, []byte(frame))
	}
	return corpus
}

// A mutator makes frames out of frames. It is not safe for concurrent use.
type mutator struct {
	rand   *rand.Rand
	corpus [][]byte
	frame  []byte
	before []byte
}

func newMutator(seed uint64, corpus [][]byte) *mutator {
	return &mutator{rand: rand.New(rand.NewPCG(seed, 0)), corpus: corpus, before: make([]byte, 0, 1<<16)}
}

// edgeBytes begin, end and overflow numbers more often than chance does.
var edgeBytes = []byte{0, 1, 2, 3, 16, 17, 63, 64, 65, 127, 128, 129, 254, 255}

// next returns a frame, valid until the following call.
func (m *mutator) next() []byte {
	pick := func() []byte { return m.corpus[m.rand.IntN(len(m.corpus))] }
	origin := pick()
	f := append(m.frame[:0], origin...)
	from := 0
	keepHeader := m.rand.IntN(4) > 0 && len(f) > HeaderLen
	if keepHeader {
		from = HeaderLen // a wrong header hides what is behind it
	}
	for range 1 + m.rand.IntN(4) {
		if len(f) <= from {
			break
		}
		at := from + m.rand.IntN(len(f)-from)
		switch m.rand.IntN(8) {
		case 0:
			f[at] ^= 1 << m.rand.IntN(8)
		case 1:
			f[at] = byte(m.rand.Uint32())
		case 2:
			f[at] = edgeBytes[m.rand.IntN(len(edgeBytes))]
		case 3:
			f[at] += byte(m.rand.IntN(5)) - 2
		case 4: // a piece is lost
			n := min(len(f)-at, 1+m.rand.IntN(20))
			f = append(f[:at], f[at+n:]...)
		case 5: // a piece comes twice
			n := min(len(f)-at, 1+m.rand.IntN(40))
			piece := bytes.Clone(f[at : at+n])
			f = append(f[:at+n], append(piece, f[at+n:]...)...)
		case 6: // a piece of another frame comes in
			if other := pick(); len(other) > HeaderLen {
				b := other[HeaderLen:]
				i := m.rand.IntN(len(b))
				piece := bytes.Clone(b[i:min(len(b), i+1+m.rand.IntN(40))])
				f = append(f[:at], append(piece, f[at:]...)...)
			}
		case 7: // the largest number, one more, and a longer form
			forms := [...]string{"\xff\xff\xff\xff\xff\xff\x3f", "\x80\x80\x80\x80\x80\x80\x40", "\x81\x00", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"}
			piece := forms[m.rand.IntN(len(forms))]
			f = append(f[:at], append([]byte(piece), f[at+1:]...)...)
		}
	}
	if len(f) >= HeaderLen && m.rand.IntN(16) > 0 {
		binary.BigEndian.PutUint32(f[offLength:], uint32(len(f)))
		if keepHeader && m.rand.IntN(4) == 0 { // another decoder for the same bytes
			types := [...]Type{TypeEvents, TypeFragment, TypeHeartbeat, TypeNAK, TypeGone, TypeHello, TypeState, TypeACK, TypeBye, TypeReset, TypeDigest, TypeWitness}
			typ := types[m.rand.IntN(len(types))]
			f[offType] = byte(typ)
			if typ.Control() {
				clear(f[offOrdinal:offClock])
			} else {
				binary.BigEndian.PutUint32(f[offCount:], 1)
			}
		}
	}
	m.frame = f
	return f
}
