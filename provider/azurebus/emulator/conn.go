package emulator

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/Azure/go-amqp"
)

// A conn is one client's connection. All but out is guarded by Emulator.mu.
type conn struct {
	e        *Emulator
	net      net.Conn
	out      *outbox
	maxFrame int // that the client takes
	key      string
	sessions map[uint16]*session
}

type session struct {
	conn      *conn
	channel   uint16 // the same in both directions
	links     map[uint32]*link
	nextID    uint32 // of the next delivery to the client
	sent      uint32 // transfer frames to the client
	received  uint32 // transfer frames from the client
	unsettled map[uint32]*lock
}

// A link as the client sees it: a sender's messages come here, a receiver's go there.
type link struct {
	session  *session
	handle   uint32 // the same in both directions
	name     string
	sends    bool // the client sends
	address  string
	replyTo  string
	settled  bool // what goes to the client needs no settling
	topic    *topic
	sub      *subscription
	delivery uint32 // count of deliveries
	credit   uint32
	partial  []byte // of a message in several frames
	first    list   // fields of its first frame
}

// An outbox writes frames in their order; whoever puts one into it does not wait.
type outbox struct {
	mu     sync.Mutex
	filled *sync.Cond
	bytes  []byte
	closed bool
}

func newOutbox() *outbox {
	o := &outbox{}
	o.filled = sync.NewCond(&o.mu)
	return o
}

func (o *outbox) put(b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bytes = append(o.bytes, b...)
	o.filled.Signal()
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.filled.Signal()
}

// drain writes until the outbox is closed and empty, or writing fails.
func (o *outbox) drain(w io.Writer) {
	for {
		o.mu.Lock()
		for len(o.bytes) == 0 && !o.closed {
			o.filled.Wait()
		}
		b := o.bytes
		o.bytes = nil
		o.mu.Unlock()
		if len(b) == 0 {
			return
		}
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}

// serve speaks with a client until it or the emulator ends that.
func (e *Emulator) serve(nc net.Conn) {
	defer nc.Close()
	r := bufio.NewReaderSize(nc, 64<<10)
	c := &conn{e: e, net: nc, out: newOutbox(), maxFrame: 512, sessions: make(map[uint16]*session)}
	if !e.admit(c) {
		return
	}
	defer e.leave(c)
	var writer sync.WaitGroup
	defer writer.Wait()
	defer c.out.close()
	writer.Go(func() {
		c.out.drain(nc)
		nc.Close()
	})
	if !c.greet(r) {
		return
	}
	for {
		f, err := readFrame(r)
		if err != nil {
			return
		}
		if f.code == 0 {
			continue
		}
		e.mu.Lock()
		open := c.handle(f)
		e.mu.Unlock()
		if !open {
			return
		}
	}
}

// greet does SASL, which lets everybody in, and the protocol headers.
func (c *conn) greet(r io.Reader) bool {
	header := func(id byte) bool {
		var h [8]byte
		if _, err := io.ReadFull(r, h[:]); err != nil || string(h[:]) != "AMQP"+string([]byte{id, 1, 0, 0}) {
			return false
		}
		c.out.put(h[:])
		return true
	}
	if !header(3) {
		return false
	}
	c.out.put(appendFrame(nil, frame{kind: frameSASL, code: codeMechanisms, fields: list{array{symbol("ANONYMOUS")}}}))
	if f, err := readFrame(r); err != nil || f.code != codeInit {
		return false
	}
	c.out.put(appendFrame(nil, frame{kind: frameSASL, code: codeOutcome, fields: list{uint8(0)}}))
	return header(0)
}

func (c *conn) send(channel uint16, code uint64, fields list, payload ...byte) {
	c.out.put(appendFrame(nil, frame{channel: channel, code: code, fields: fields, payload: payload}))
}

// handle does what a frame asks for, and reports whether the connection goes on.
func (c *conn) handle(f frame) bool {
	switch f.code {
	case codeOpen:
		if n := field[uint32](f.fields, 2); n >= 512 {
			c.maxFrame = int(min(n, maxFrameBytes))
		}
		c.send(0, codeOpen, list{"emulator", nil, uint32(maxFrameBytes), uint16(1023)})
		return true
	case codeClose:
		c.send(0, codeClose, list{})
		return false
	case codeBegin:
		s := &session{conn: c, channel: f.channel, links: make(map[uint32]*link), unsettled: make(map[uint32]*lock)}
		c.sessions[f.channel] = s
		c.send(f.channel, codeBegin, list{f.channel, uint32(0), uint32(1 << 30), uint32(1 << 30), uint32(1023)})
		return true
	}
	s := c.sessions[f.channel]
	if s == nil {
		return false
	}
	switch f.code {
	case codeEnd:
		s.end()
		delete(c.sessions, f.channel)
		c.send(f.channel, codeEnd, list{})
	case codeAttach:
		s.attach(f.fields)
	case codeDetach:
		if l := s.links[field[uint32](f.fields, 0)]; l != nil {
			l.forget()
			c.send(s.channel, codeDetach, list{l.handle, true})
		}
	case codeFlow:
		s.flow(f.fields)
	case codeTransfer:
		if l := s.links[field[uint32](f.fields, 0)]; l != nil {
			s.received++
			l.transfer(f)
		}
	case codeDisposition:
		s.settle(f.fields)
	}
	return true
}

// attach answers a link that the client wants.
func (s *session) attach(a list) {
	l := &link{session: s, name: field[string](a, 0), handle: field[uint32](a, 1), sends: !field[bool](a, 2)}
	sndMode, rcvMode := field[uint8](a, 3), field[uint8](a, 4)
	l.settled = sndMode == 1
	source, target := field[described](a, 5), field[described](a, 6)
	l.address = addressOf(source)
	l.replyTo = addressOf(target)
	if l.sends {
		l.address = l.replyTo
	}
	answer := list{l.name, l.handle, l.sends, sndMode, rcvMode, source, target, nil, nil, nil, uint64(s.conn.e.options.MaxMessageBytes)}
	if !l.sends {
		answer[9] = uint32(0)
	}
	refused := s.conn.e.open(l)
	if refused != nil {
		answer[5], answer[6] = nil, nil
	}
	s.conn.send(s.channel, codeAttach, answer)
	if refused != nil {
		s.conn.send(s.channel, codeDetach, list{l.handle, true, *refused})
		return
	}
	s.links[l.handle] = l
	if l.sends {
		l.grant()
	}
}

func addressOf(d described) string {
	fields, _ := d.value.(list)
	return field[string](fields, 0)
}

const grantedCredit = 1000

// grant gives a client that sends new credit.
func (l *link) grant() {
	l.credit = grantedCredit
	s := l.session
	s.conn.send(s.channel, codeFlow, list{s.received, uint32(1 << 30), s.sent, uint32(1 << 30), l.handle, l.delivery, l.credit})
}

func (s *session) flow(f list) {
	if len(f) < 7 || f[4] == nil {
		return
	}
	l := s.links[field[uint32](f, 4)]
	if l == nil || l.sends {
		return
	}
	l.credit = field[uint32](f, 5) + field[uint32](f, 6) - l.delivery
	if l.sub != nil {
		l.sub.used = s.conn.e.now()
		s.conn.e.pump(l.sub)
	}
}

// deliver sends a message to the client.
func (l *link) deliver(k *lock, m *amqp.Message) {
	b, err := m.MarshalBinary()
	if err != nil {
		panic("emulator: " + err.Error()) // it was decoded by the same library
	}
	s := l.session
	id := s.nextID
	s.nextID++
	l.delivery++
	if l.credit > 0 {
		l.credit--
	}
	var tag []byte
	if k != nil {
		k.id, tag = id, k.token[:]
	} else {
		tag = []byte{byte(id)}
	}
	fields := list{l.handle, id, tag, uint32(0), l.settled, false}
	for room := s.conn.maxFrame - 256; ; {
		n := min(room, len(b))
		fields[5] = n < len(b)
		s.sent++
		s.conn.send(s.channel, codeTransfer, fields, b[:n]...)
		if b = b[n:]; len(b) == 0 {
			return
		}
		fields = list{l.handle, nil, nil, nil, l.settled, false}
	}
}

// transfer takes a frame of a message.
func (l *link) transfer(f frame) {
	if l.first == nil {
		l.first = f.fields
	}
	l.partial = append(l.partial, f.payload...)
	if field[bool](f.fields, 5) {
		return
	}
	first, b := l.first, l.partial
	l.first, l.partial = nil, nil
	l.delivery++
	state := l.take(b, field[uint32](first, 3))
	s := l.session
	if !field[bool](first, 4) {
		id := field[uint32](first, 1)
		s.conn.send(s.channel, codeDisposition, list{true, id, id, true, state})
	}
	if l.credit--; l.credit < grantedCredit/2 {
		l.grant()
	}
}

// take does what a message is for, and returns its outcome.
func (l *link) take(b []byte, format uint32) described {
	var m amqp.Message
	if err := m.UnmarshalBinary(b); err != nil {
		return rejected("amqp:decode-error", err.Error())
	}
	e := l.session.conn.e
	if l.topic == nil {
		l.answer(&m)
		return described{codeAccepted, list{}}
	}
	if refused := e.refuses(l.topic, len(b)); refused != nil {
		return *refused
	}
	e.operations.Sends++
	e.operations.Units += units(len(b))
	messages := []*amqp.Message{&m}
	if format == 0x80013700 {
		messages = nil
		for _, one := range m.Data {
			var m amqp.Message
			if err := m.UnmarshalBinary(one); err != nil {
				return rejected("amqp:decode-error", err.Error())
			}
			messages = append(messages, &m)
		}
	}
	for _, m := range messages {
		size := 0
		for _, d := range m.Data {
			size += len(d)
		}
		e.publish(l.topic, m, size)
	}
	return described{codeAccepted, list{}}
}

func rejected(condition, text string) described {
	return described{codeRejected, list{fault(condition, text)}}
}

// settle does what a client says of messages that it was given.
func (s *session) settle(d list) {
	if !field[bool](d, 0) { // of what it sent itself
		return
	}
	e := s.conn.e
	first, last := field[uint32](d, 1), field[uint32](d, 1)
	if len(d) > 2 && d[2] != nil {
		last = field[uint32](d, 2)
	}
	if last-first > 1<<16 {
		return
	}
	state := field[described](d, 4)
	for id := first; id <= last; id++ {
		k := s.unsettled[id]
		answer := state
		switch {
		case k == nil:
			answer = rejected("com.microsoft:message-lock-lost", "The lock supplied is invalid. Either the lock expired, or the message has already been removed from the queue.")
		case state.code == codeAccepted:
			e.complete(k)
		case state.code == codeReleased, state.code == codeModified:
			e.operations.Released++
			e.operations.Wasted += units(k.message.size)
			e.giveBack(k, state.code == codeModified)
			e.pump(k.sub)
		}
		s.conn.send(s.channel, codeDisposition, list{false, id, id, true, answer})
	}
}

// detach ends a link with an error.
func (l *link) detach(reason described) {
	l.forget()
	l.session.conn.send(l.session.channel, codeDetach, list{l.handle, true, reason})
}

// forget removes a link. What it was given stays locked until that runs out.
func (l *link) forget() {
	delete(l.session.links, l.handle)
	if l.sub != nil {
		for i, other := range l.sub.links {
			if other == l {
				l.sub.links = append(l.sub.links[:i:i], l.sub.links[i+1:]...)
				break
			}
		}
	}
}

func (s *session) end() {
	for _, l := range s.links {
		l.forget()
	}
}

// management reports whether an address is that of an entity's management, and of which.
func management(address string) (entity string, ok bool) {
	return strings.CutSuffix(address, "/$management")
}
