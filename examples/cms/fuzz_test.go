package cms

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// FuzzHandler sends requests of every method to any path with any form. The server
// never panics and never answers with an error of its own.
func FuzzHandler(f *testing.F) {
	for _, s := range [][3]string{
		{"GET", "/", ""}, {"GET", "/workflow/", ""}, {"GET", "/link/1", ""}, {"GET", "/link/-1", ""}, {"POST", "/edit/news", "title=a&body=b&revision=1"},
		{"POST", "/rename/news", "slug=../x"}, {"POST", "/workflow/news", "action=approve"}, {"GET", "/static/../go.mod", ""}, {"PUT", "/%00", "%"},
	} {
		f.Add(s[0], s[1], s[2], true)
	}
	handler := newSite(f, 1).instances[0].Handler()
	f.Fuzz(func(t *testing.T, method, path, form string, typed bool) {
		if method == "" || strings.ContainsAny(method, " \t\r\n") || !validMethod(method) {
			return
		}
		u, err := url.ParseRequestURI("/" + strings.TrimPrefix(path, "/"))
		if err != nil {
			return
		}
		r := httptest.NewRequest("GET", "/", strings.NewReader(form))
		r.Method, r.URL, r.RequestURI, r.Host = method, u, u.RequestURI(), "127.0.0.1:8081"
		if typed {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code >= 500 || w.Code < 200 {
			t.Errorf("%s %q with %q: status %d, %s", method, path, form, w.Code, w.Body)
		}
		if w.Code == http.StatusOK && w.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%s %q: no content security policy", method, path)
		}
	})
}

func validMethod(m string) bool {
	_, err := http.NewRequest(m, "http://x/", nil)
	return err == nil
}
