package vectors

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"reflect"
	"strconv"
	"testing"

	"github.com/carillon-go/carillon/internal/plain"
	"github.com/carillon-go/carillon/internal/seal"
	"github.com/carillon-go/carillon/internal/wire"
	"github.com/carillon-go/carillon/site"
)

var add = flag.Bool("add", false, "write the vectors that are missing")

const published = "../../docs/vectors.json"

// The list is what cases_test.go makes, byte by byte, so that nobody edits either
// alone.
func TestPublished_VectorsAreAddedAndNeverEdited(t *testing.T) {
	list := readPublished(t)
	at := map[string]int{}
	for i, v := range list {
		if _, twice := at[v.Name]; twice {
			t.Errorf("%q is there twice", v.Name)
		}
		at[v.Name] = i
	}
	made := map[string]bool{}
	for _, v := range allCases(t) {
		if made[v.Name] {
			t.Errorf("%q is made twice", v.Name)
		}
		made[v.Name] = true
		got, refused := second(v)
		if refused != v.Refused {
			t.Errorf("%s: made to be refused for %q, the second decoder says %q", v.Name, v.Refused, refused)
			continue
		}
		v.Want = got
		i, there := at[v.Name]
		switch {
		case !there && *add:
			list = append(list, v)
		case !there:
			t.Errorf("%q is not published; add it with go test ./internal/vectors -run=Published -add", v.Name)
		case !bytes.Equal(marshal(t, v), marshal(t, list[i])):
			t.Errorf("%s\npublished %s\nmade      %s", v.Name, marshal(t, list[i]), marshal(t, v))
		}
	}
	for name := range at {
		if !made[name] {
			t.Errorf("%q is published and made by nothing", name)
		}
	}
	if *add && !t.Failed() {
		if err := Write(published, list); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPublished_AreEnoughAndHalfOfThemRefused(t *testing.T) {
	list := readPublished(t)
	refused := 0
	for _, v := range list {
		if (v.Refused == "") != (v.Want != nil) {
			t.Errorf("%s: refused for %q, outcome %+v", v.Name, v.Refused, v.Want)
		}
		if v.Rule == "" {
			t.Errorf("%s names no rule", v.Name)
		}
		if v.Refused != "" {
			refused++
		}
	}
	t.Logf("%d vectors, %d of them to be refused", len(list), refused)
	if len(list) < 200 || 2*refused < len(list) {
		t.Errorf("%d vectors, %d of them to be refused; want 200 and half of them", len(list), refused)
	}
}

// Both decoders come to what is published: ours, and the one written from the
// document alone.
func TestPublished_BothDecodersAgree(t *testing.T) {
	for _, v := range readPublished(t) {
		t.Run(v.Name, func(t *testing.T) {
			decoders := map[string]func(Vector) (*Outcome, string){"second": second, "ours": ours}
			if v.Kind == "handshake" {
				delete(decoders, "ours") // provider/tcpbus holds its own against them
			}
			for who, decode := range decoders {
				got, refused := decode(v)
				if refused != v.Refused {
					t.Errorf("%s: refused for %q, want %q", who, refused, v.Refused)
				}
				if v.Want != nil && got != nil && !reflect.DeepEqual(value(t, got), value(t, v.Want)) {
					t.Errorf("%s:\n got %s\nwant %s", who, marshal(t, got), marshal(t, v.Want))
				}
			}
		})
	}
}

func readPublished(t *testing.T) []Vector {
	t.Helper()
	list, err := Read(published)
	if err != nil && !*add {
		t.Fatal(err)
	}
	return list
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// value returns v as JSON has it, whatever the order of its fields.
func value(t *testing.T, v any) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(marshal(t, v)))
	d.UseNumber()
	var any any
	if err := d.Decode(&any); err != nil {
		t.Fatal(err)
	}
	return any
}

func rawJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// second decodes with internal/plain.
func second(v Vector) (*Outcome, string) {
	sites := forPlain(v.Sites)
	o, err := func() (*Outcome, error) {
		switch v.Kind {
		case "frame":
			header, body, err := plain.Open(sites, v.Bytes())
			return &Outcome{Header: rawJSON(header), Body: rawJSON(body)}, err
		case "record":
			var record []byte
			for _, f := range v.Frames {
				_, body, err := plain.Open(sites, f)
				if err != nil {
					return nil, err
				}
				record = append(record, unhex(body["chunk"].(string))...)
			}
			event, err := plain.Record(record)
			return &Outcome{Event: rawJSON(event)}, err
		case "derivation":
			last := []byte(v.Stream)
			if v.Use == "proof" {
				last = []byte(v.Label)
			}
			info, key := plain.Derive(&sites[0].Keys[0], [16]byte(v.Site), v.Use, last)
			return &Outcome{Info: info, Key: key}, nil
		case "proof":
			proof, err := plain.Prove(sites, [16]byte(v.Site), v.Key, v.Label, v.Transcript)
			return &Outcome{Proof: proof}, err
		case "handshake":
			read, err := plain.Handshake(sites, v.Hello, v.Answer, v.Exporter, v.InitiatorProof, v.AcceptorProof)
			return &Outcome{Read: rawJSON(read)}, err
		}
		return nil, errors.New("unknown kind " + v.Kind)
	}()
	return outcome(o, err)
}

func outcome(o *Outcome, err error) (*Outcome, string) {
	if err == nil {
		return o, ""
	}
	if r, ok := errors.AsType[plain.Refusal](err); ok {
		return nil, string(r)
	}
	return nil, err.Error()
}

// ours decodes with the packages that instances use.
func ours(v Vector) (*Outcome, string) {
	var sites []site.Site
	for _, s := range v.Sites {
		t := site.Site{ID: site.ID(s.ID), Floors: site.Floors{EncryptionRequired: s.EncryptionRequired, Version: s.LowestVersion}}
		for _, k := range s.Keys {
			secret, err := site.NewSecret(k.TestSecret)
			if err != nil {
				return nil, err.Error()
			}
			t.Keys = append(t.Keys, site.Key{ID: site.KeyID(k.ID), State: states[k.State], Suite: site.Suite(k.Suite), Version: k.Version, Secret: secret})
		}
		sites = append(sites, t)
	}
	o := seal.NewOpener()
	o.SetKeys(sites)
	switch v.Kind {
	case "frame":
		h, body, refused := openFrame(o, v.Bytes())
		if refused != "" {
			return nil, refused
		}
		return &Outcome{Header: rawJSON(map[string]any{
			"type": h.Type.String(), "key": h.Key, "site": hex.EncodeToString(h.Site[:]), "stream": hex.EncodeToString(h.Stream[:]),
			"number": h.Number, "ordinal": h.Ordinal, "count": h.Count, "clock": strconv.FormatInt(h.Clock, 10),
		}), Body: rawJSON(body)}, ""
	case "record":
		var record []byte
		for _, b := range v.Frames {
			_, body, refused := openFrame(o, b)
			if refused != "" {
				return nil, refused
			}
			record = append(record, unhex(body["chunk"].(string))...)
		}
		e, err := wire.ReadRecord(record)
		if err != nil {
			return nil, why(err)
		}
		return &Outcome{Event: rawJSON(eventJSON(e))}, ""
	case "derivation":
		// Keys do not leave internal/seal: what a derived key makes has to do.
		k := v.Sites[0].Keys[0]
		want := sum(v.Want.Key, []byte("carillon proof v1\x00"), []byte("x"))
		if v.Use == "frame" {
			s, err := seal.NewSealer(sites[0].Keys[0], site.ID(v.Site), site.StreamID(v.Stream))
			if err != nil {
				return nil, err.Error()
			}
			f := one().but(func(f *frame) { f.key, f.site, f.stream = k.ID, [16]byte(v.Site), [16]byte(v.Stream) })
			sealed := map[uint8]func() []byte{
				hmacSuite:  func() []byte { return f.hmacWith(v.Want.Key) },
				gcmSuite:   func() []byte { return f.gcmWith(v.Want.Key, f.nonce(), f.header(gcmLen)) },
				ghashSuite: func() []byte { return f.ghashWith(v.Want.Key) },
			}[k.Suite]()
			if k.Suite != gcmSuite {
				again := bytes.Clone(sealed)
				if s.Seal(again); !bytes.Equal(again, sealed) {
					return nil, "sealed otherwise"
				}
			}
			_, err = o.Open(site.ID(v.Site), site.KeyID(k.ID), site.StreamID(v.Stream), sealed)
			if err != nil {
				return nil, why(err)
			}
			return v.Want, ""
		}
		proof, err := o.Prove(site.ID(v.Site), site.KeyID(k.ID), v.Label, []byte("x"))
		if err != nil || !bytes.Equal(proof[:], want) {
			return nil, "another proof"
		}
		return v.Want, ""
	case "proof":
		proof, err := o.Prove(site.ID(v.Site), site.KeyID(v.Key), v.Label, v.Transcript)
		if err != nil {
			return nil, why(err)
		}
		if err := o.Verify(site.ID(v.Site), site.KeyID(v.Key), v.Label, v.Transcript, proof); err != nil {
			return nil, why(err)
		}
		return &Outcome{Proof: proof[:]}, ""
	}
	return nil, "unknown kind " + v.Kind
}

var states = map[string]site.KeyState{
	"pending": site.KeyPending, "active": site.KeyActive, "retiring": site.KeyRetiring,
	"revoked": site.KeyRevoked, "compromised": site.KeyCompromised,
}

func openFrame(o *seal.Opener, b []byte) (h wire.Header, body map[string]any, refused string) {
	h, err := wire.ParseHeader(b)
	if errors.Is(err, wire.ErrMalformed) {
		return h, nil, "header"
	}
	if err != nil {
		return h, nil, why(err)
	}
	clear, err := o.Open(h.Site, h.Key, h.Stream, b)
	if err != nil {
		return h, nil, why(err)
	}
	body, err = bodyJSON(h, clear)
	if err != nil {
		return h, nil, why(err)
	}
	return h, body, ""
}

// why returns the word that docs/vectors.md has for an error of ours.
func why(err error) string {
	for _, w := range []struct {
		err  error
		word string
	}{
		{wire.ErrLength, "length"}, {wire.ErrMagic, "magic"}, {wire.ErrVersion, "version"}, {wire.ErrType, "type"}, {wire.ErrMalformed, "body"},
		{seal.ErrUnknownSite, "site"}, {seal.ErrUnknownKey, "key"}, {seal.ErrRevoked, "revoked"}, {seal.ErrFloor, "floor"},
		{seal.ErrUnsupported, "unsupported"}, {seal.ErrVersion, "version"}, {seal.ErrTag, "tag"}, {seal.ErrProof, "proof"},
	} {
		if errors.Is(err, w.err) {
			return w.word
		}
	}
	return err.Error()
}
