// Package vectors keeps docs/vectors.json, what other implementations are held
// against. Its tests hold ours against it, and a second decoder that was
// written from docs/PROTOCOL.md alone.
//
//	go test ./internal/vectors -run=Published -add
//
// writes the vectors that are missing. None is ever edited or removed: what would need
// other bytes is another wire version.
package vectors

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
)

// A Hex is bytes that JSON shows as hexadecimal digits.
type Hex []byte

// MarshalText implements encoding.TextMarshaler.
func (h Hex) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hex) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// A Vector is one entry of the list. docs/vectors.md says what the fields mean; which of
// them there are depends on Kind.
type Vector struct {
	Name string `json:"name"`
	Kind string `json:"kind"` // frame, record, derivation, proof or handshake
	Rule string `json:"rule"` // of docs/PROTOCOL.md, for people

	Sites []Site `json:"sites,omitempty"`

	Frame  Hex    `json:"frame,omitempty"`
	Zeros  *Zeros `json:"zeros,omitempty"`
	Frames []Hex  `json:"frames,omitempty"` // fragments, in order

	Site       Hex    `json:"site,omitempty"`
	Key        uint32 `json:"key,omitempty"`
	Use        string `json:"use,omitempty"`   // of a derivation: frame or proof
	Label      string `json:"label,omitempty"` // of a proof
	Stream     Hex    `json:"stream,omitempty"`
	Transcript Hex    `json:"transcript,omitempty"`

	Hello          Hex `json:"hello,omitempty"`
	Answer         Hex `json:"answer,omitempty"`
	Exporter       Hex `json:"exporter,omitempty"`
	InitiatorProof Hex `json:"initiator_proof,omitempty"`
	AcceptorProof  Hex `json:"acceptor_proof,omitempty"`

	Refused string   `json:"refused,omitempty"`
	Want    *Outcome `json:"accepted,omitempty"`
}

// Zeros says that Count bytes of zero belong into the frame at At.
type Zeros struct {
	At    int `json:"at"`
	Count int `json:"count"`
}

// An Outcome is what a vector that is accepted decodes to, or gives.
type Outcome struct {
	Header json.RawMessage `json:"header,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	Event  json.RawMessage `json:"event,omitempty"`
	Info   Hex             `json:"info,omitempty"`
	Key    Hex             `json:"key,omitempty"`
	Proof  Hex             `json:"proof,omitempty"`
	Read   json.RawMessage `json:"read,omitempty"`
}

// A Site is what the receiver knows.
type Site struct {
	ID                 Hex   `json:"id"`
	EncryptionRequired bool  `json:"encryption_required,omitempty"`
	LowestVersion      uint8 `json:"lowest_version"`
	Keys               []Key `json:"keys"`
}

// A Key is one entry of a test keyring. Its secret protects nothing.
type Key struct {
	ID         uint32 `json:"id"`
	State      string `json:"state"`
	Suite      uint8  `json:"suite"`
	Version    uint8  `json:"version"`
	TestSecret Hex    `json:"test_secret"`
}

// Bytes returns the frame, with its zeros in place.
func (v *Vector) Bytes() []byte {
	if v.Zeros == nil {
		return v.Frame
	}
	return bytes.Join([][]byte{v.Frame[:v.Zeros.At], make([]byte, v.Zeros.Count), v.Frame[v.Zeros.At:]}, nil)
}

// Read reads a list.
func Read(name string) ([]Vector, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var list []Vector
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return list, nil
}

// Write writes a list, a vector a line.
func Write(name string, list []Vector) error {
	var w bytes.Buffer
	w.WriteString("[\n")
	for i := range list {
		line, err := json.Marshal(&list[i])
		if err != nil {
			return err
		}
		w.Write(line)
		if i < len(list)-1 {
			w.WriteByte(',')
		}
		w.WriteByte('\n')
	}
	w.WriteString("]\n")
	return os.WriteFile(name, w.Bytes(), 0o644)
}
