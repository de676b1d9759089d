package provider_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/carillon-go/carillon/provider"
)

func TestWrongSetting_ReadsAsASentenceAndWrapsWhatItExplains(t *testing.T) {
	err := provider.WrongSetting("pigeon", "Loft", "%q: %w; want a roof", "cellar", fs.ErrNotExist)
	if got, want := err.Error(), `pigeon: Loft "cellar": file does not exist; want a roof`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	wrong, ok := errors.AsType[*provider.SettingError](err)
	if !ok || wrong.Provider != "pigeon" || wrong.Setting != "Loft" || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%#v; want a SettingError on Loft that wraps %v", err, fs.ErrNotExist)
	}
}
