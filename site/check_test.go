package site

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestNewSite_IsAlwaysAnother(t *testing.T) {
	a, b := NewSite("app"), NewSite("app")
	if a.ID == b.ID || a.Keys[0].Secret.Equal(b.Keys[0].Secret) {
		t.Errorf("two new sites share an ID or a secret: %v, %v", a, b)
	}
	for _, s := range []Site{a, b} {
		if u := s.ID.String(); u[14] != '4' || !strings.ContainsRune("89ab", rune(u[19])) {
			t.Errorf("%s is not a random UUID", u)
		}
		if k := s.Keys[0]; k.State != KeyActive || k.ID != 1 || k.Secret.IsZero() {
			t.Errorf("the key of a new site is %+v; want an active key 1", k)
		}
	}
}

func TestNewSite_PrintsNoSecret(t *testing.T) {
	s := NewSite("app")
	secret := s.Keys[0].Secret.Reveal()
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("site", "site", s, "key", s.Keys[0], "secret", s.Keys[0].Secret)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	forms := []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"}
	all := log.String() + string(text)
	hidden := struct{ inner Site }{s} // fmt calls no method on what is not exported
	for _, form := range forms {
		all += fmt.Sprintf(form, s) + fmt.Sprintf(form, hidden)
	}
	for _, form := range forms {
		if shown := strings.Trim(fmt.Sprintf(form, secret), "[]\""); strings.Contains(all, shown) {
			t.Errorf("the secret shows in the form %s", form)
		}
	}
}

func TestCheckName_BothSidesOfEachLimit(t *testing.T) {
	for name, good := range map[string]bool{
		"a": true, "Ärger 🔔": true, strings.Repeat("x", MaxNameLen): true,
		"": false, strings.Repeat("x", MaxNameLen+1): false, " a": false, "a ": false, "a\tb": false, "\xff": false,
	} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
}
