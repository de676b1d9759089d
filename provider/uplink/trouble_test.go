package uplink_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/provider/uplink"
)

func TestTrouble_ShowsItsLineAndWrapsWhatItExplains(t *testing.T) {
	why := errors.New("dial as app:s3cr3t")
	err := uplink.NewTrouble("example: nobody listens there; start the server", why)
	if !errors.Is(err, why) || err.Error() != "example: nobody listens there; start the server" {
		t.Errorf("%q, which wraps %v", err, err.Unwrap())
	}
	if errors.Unwrap(uplink.NewTrouble("example: it is full; make room", nil)) != nil {
		t.Error("a trouble of its own wraps something")
	}
}

func TestFirstLine(t *testing.T) {
	for _, tt := range []struct{ said, want string }{
		{"refused", "refused"},
		{" refused \nand more", "refused"},
		{"", ""},
		{strings.Repeat("a", 200), strings.Repeat("a", 200)},
		{strings.Repeat("a", 201), strings.Repeat("a", 200) + "…"},
	} {
		if got := uplink.FirstLine(tt.said); got != tt.want {
			t.Errorf("FirstLine(%q) = %q, want %q", tt.said, got, tt.want)
		}
	}
}
