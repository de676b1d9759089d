package web_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/carillon-go/carillon/examples/cms/web"
)

func TestGuard(t *testing.T) {
	h := web.Guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), "default-src 'none'")
	for _, tt := range []struct {
		name, method, host, origin, site string
		want                             int
	}{
		{"read", "GET", "127.0.0.1:8081", "", "", 204},
		{"read by name", "GET", "localhost:8081", "", "", 204},
		{"read by upper-case name", "GET", "LOCALHOST", "", "", 204},
		{"read over IPv6", "GET", "[::1]:8081", "", "", 204},
		{"read by another name of this machine", "GET", "evil.example:8081", "", "", 421},
		{"read by a name that begins like ours", "GET", "localhost.evil.example", "", "", 421},
		{"read by no name", "GET", "", "", "", 421},
		{"write without origin", "POST", "127.0.0.1:8081", "", "", 204},
		{"write from itself", "POST", "127.0.0.1:8081", "http://127.0.0.1:8081", "same-origin", 204},
		{"write from itself, old browser", "POST", "127.0.0.1:8081", "http://127.0.0.1:8081", "", 204},
		{"write from another instance", "POST", "127.0.0.1:8081", "http://127.0.0.1:8082", "same-site", 403},
		{"write from another instance, old browser", "POST", "127.0.0.1:8081", "http://127.0.0.1:8082", "", 403},
		{"write from elsewhere", "POST", "127.0.0.1:8081", "https://evil.example", "cross-site", 403},
		{"write from elsewhere, old browser", "POST", "127.0.0.1:8081", "https://evil.example", "", 403},
		{"write from nowhere", "POST", "127.0.0.1:8081", "null", "", 403},
		{"write to another name from there", "POST", "evil.example", "http://evil.example", "same-origin", 421},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, "/", nil)
			r.Host = tt.host
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			if tt.site != "" {
				r.Header.Set("Sec-Fetch-Site", tt.site)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("%s from %q to %q: %d, want %d", tt.method, tt.origin, tt.host, w.Code, tt.want)
			}
			if w.Header().Get("Content-Security-Policy") == "" || w.Header().Get("X-Content-Type-Options") == "" {
				t.Errorf("headers are missing: %v", w.Header())
			}
		})
	}
}
