package carillon_test

import (
	"encoding/json"
	"testing"

	"github.com/carillon-go/carillon"
)

func TestParseID_AcceptsTheUsualForms(t *testing.T) {
	const want = "7d3f1b6e-5a0c-4a53-9a41-0c2b7f0e8d15"
	for _, s := range []string{
		want, "7D3F1B6E-5A0C-4A53-9A41-0C2B7F0E8D15", "7d3f1b6e5a0c4a539a410c2b7f0e8d15",
		"{7d3f1b6e-5a0c-4a53-9a41-0c2b7f0e8d15}", "{7D3F1B6E5A0C4A539A410C2B7F0E8D15}",
		"(7d3f1b6e-5a0c-4a53-9a41-0c2b7f0e8d15)", "urn:uuid:7d3f1b6e-5a0c-4a53-9a41-0c2b7f0e8d15",
	} {
		id, err := carillon.ParseID(s)
		if err != nil || id.String() != want {
			t.Errorf("ParseID(%q) = %v, %v, want %v", s, id, err, want)
		}
	}
}

func TestParseID_RefusesEverythingElse(t *testing.T) {
	for _, s := range []string{
		"", "{}", "{", "7d3f1b6e", "7d3f1b6e-5a0c-4a53-9a41-0c2b7f0e8d1", "7d3f1b6e-5a0c-4a53-9a41-0c2b7f0e8d155",
		"7d3f1b6e-5a0c-4a53-9a41-0c2b7f0e8d1g", "7d3f1b6e-5a0c4a539a410c2b7f0e8d15", "{7d3f1b6e-5a0c-4a53-9a41-0c2b7f0e8d15",
		"{7d3f1b6e-5a0c-4a53-9a41-0c2b7f0e8d15)", "7d3f1b6e_5a0c_4a53_9a41_0c2b7f0e8d15", " 7d3f1b6e-5a0c-4a53-9a41-0c2b7f0e8d15",
	} {
		if id, err := carillon.ParseID(s); err == nil {
			t.Errorf("ParseID(%q) = %v, want an error", s, id)
		}
	}
}

func TestNewID_IsRandomAndVersion4(t *testing.T) {
	a, b := carillon.NewID(), carillon.NewID()
	if a == b || a.IsZero() {
		t.Errorf("NewID() = %v, then %v", a, b)
	}
	if s := a.String(); s[14] != '4' || (s[19] != '8' && s[19] != '9' && s[19] != 'a' && s[19] != 'b') {
		t.Errorf("NewID() = %v, which is not a version 4 UUID", s)
	}
}

func TestID_SurvivesText(t *testing.T) {
	type doc struct{ ID carillon.ID }
	want := doc{carillon.NewID()}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got doc
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("%s decodes to %v, %v, want %v", b, got, err, want)
	}
	if err := json.Unmarshal([]byte(`{"ID":"x"}`), &got); err == nil {
		t.Error(`the text "x" decodes to an ID`)
	}
}

func TestMustParseID_Panics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("MustParseID accepts what ParseID does not")
		}
	}()
	carillon.MustParseID("x")
}

func FuzzParseID(f *testing.F) {
	f.Add("{7D3F1B6E-5A0C-4A53-9A41-0C2B7F0E8D15}")
	f.Add("urn:uuid:7d3f1b6e-5a0c-4a53-9a41-0c2b7f0e8d15")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := carillon.ParseID(s)
		if err != nil {
			return
		}
		if again, err := carillon.ParseID(id.String()); err != nil || again != id {
			t.Errorf("ParseID(%q) = %v, which parses to %v, %v", s, id, again, err)
		}
	})
}
