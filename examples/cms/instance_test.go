package cms

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/provider/membus"
	"github.com/carillon-go/carillon/site"
	"github.com/carillon-go/carillon/site/memsite"
)

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("within 10 s not: %s", what)
		}
	}
}

// A testSite is several instances in this process.
type testSite struct {
	t         testing.TB
	file      string
	sites     site.Database
	bus       *membus.Bus
	instances []*Instance

	mu      sync.Mutex
	reports []Report
}

func newSite(t testing.TB, n int) *testSite {
	t.Helper()
	s := &testSite{t: t, file: filepath.Join(t.TempDir(), "site.db"), sites: memsite.New(time.Now), bus: membus.New()}
	if err := Prepare(t.Context(), openDB(t, s.file)); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		s.instances = append(s.instances, s.open(i+1, nil))
	}
	return s
}

// open starts an instance. change may change its Config.
func (s *testSite) open(index int, change func(*Config)) *Instance {
	s.t.Helper()
	cfg := Config{
		Index: index, DB: openDB(s.t, s.file), Database: s.sites, Provider: s.bus.Provider(),
		MissedAfter: 200 * time.Millisecond,
		Report: func(r Report) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.reports = append(s.reports, r)
		},
	}
	if change != nil {
		change(&cfg)
	}
	in, err := Open(s.t.Context(), cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { in.Close() })
	return in
}

func (s *testSite) count(kind Kind, event string) (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.reports {
		if r.Kind == kind && (event == "" || r.Event == event) {
			n += max(r.Count, 1)
		}
	}
	return n
}

// do sends a request to instance i, counted from 1.
func (s *testSite) do(i int, method, path string, pairs ...string) *httptest.ResponseRecorder {
	form := url.Values{}
	for k := 0; k < len(pairs); k += 2 {
		form.Set(pairs[k], pairs[k+1])
	}
	r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
	r.Host = fmt.Sprintf("127.0.0.1:%d", 8080+i)
	if method == "POST" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	s.instances[i-1].Handler().ServeHTTP(w, r)
	return w
}

func cacheOf(w *httptest.ResponseRecorder) string { return w.Header().Get("X-Cache") }

// Every way to change something, seen from another instance.
func TestInstance_KeepsThreeCachesInStep(t *testing.T) {
	s := newSite(t, 2)
	for _, tt := range []struct {
		name   string
		change []string // path and form of the request to instance 2
		look   string   // at instance 1
		shows  string
		event  string
	}{
		{"edit", []string{"/edit/roles", "title", "Parts", "body", "New body"}, "/roles", "New body", pageChangedName},
		{"edit shows in the list", []string{"/edit/missed", "title", "Listed anew", "body", "x"}, "/", "Listed anew", pageChangedName},
		{"save", []string{"/workflow/roles", "action", "save", "title", "Drafted", "body", "x"}, "/workflow/roles", "Drafted", workflowChangedName},
		{"submit", []string{"/workflow/roles", "action", "submit"}, "/workflow/roles", "Back to draft", workflowChangedName},
		{"submit shows on the board", []string{"/workflow/roles", "action", "return"}, "/workflow/", `<span class="badge draft">draft</span>`, workflowChangedName},
		{"submit again", []string{"/workflow/roles", "action", "submit"}, "/workflow/roles", "Back to draft", workflowChangedName},
		{"publish", []string{"/workflow/roles", "action", "publish"}, "/roles", "Drafted", pageChangedName},
		{"save anew", []string{"/workflow/roles", "action", "save", "title", "Second draft", "body", "x"}, "/workflow/roles", "Second draft", workflowChangedName},
		{"submit anew", []string{"/workflow/roles", "action", "submit"}, "/workflow/roles", "Back to draft", workflowChangedName},
		{"publish ends the work", []string{"/workflow/roles", "action", "publish"}, "/workflow/roles", "begin a draft", workflowChangedName},
		{"save another", []string{"/workflow/missed", "action", "save", "title", "D", "body", "x"}, "/workflow/missed", "Discard draft", workflowChangedName},
		{"discard", []string{"/workflow/missed", "action", "discard"}, "/workflow/missed", "begin a draft", workflowChangedName},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.do(1, "GET", tt.look)
			if w := s.do(1, "GET", tt.look); cacheOf(w) != "hit" || strings.Contains(w.Body.String(), tt.shows) {
				t.Fatalf("before: a %s", cacheOf(w))
			}
			before := s.count(KindReceived, tt.event)
			if w := s.do(2, "POST", tt.change[0], tt.change[1:]...); w.Code != http.StatusSeeOther {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			eventually(t, "the event is received", func() bool { return s.count(KindReceived, tt.event) > before })
			eventually(t, "the change is seen", func() bool { return strings.Contains(s.do(1, "GET", tt.look).Body.String(), tt.shows) })
			if w := s.do(1, "GET", tt.look); cacheOf(w) != "hit" {
				t.Errorf("after: a %s", cacheOf(w))
			}
		})
	}
	t.Run("rename", func(t *testing.T) {
		if w := s.do(1, "GET", "/link/11"); w.Header().Get("Location") != "/roles" || cacheOf(w) != "hit" {
			t.Fatalf("before: %q, a %s", w.Header().Get("Location"), cacheOf(w))
		}
		s.do(2, "POST", "/rename/roles", "slug", "Parts ")
		eventually(t, "the link leads there", func() bool { return s.do(1, "GET", "/link/11").Header().Get("Location") == "/parts" })
		eventually(t, "the old address is gone", func() bool { return s.do(1, "GET", "/roles").Code == http.StatusNotFound })
		if w := s.do(1, "GET", "/parts"); w.Code != http.StatusOK {
			t.Errorf("the new address: %d", w.Code)
		}
	})
	if n := s.count(KindMissed, "") + s.count(KindDropped, ""); n > 0 {
		t.Errorf("%d events were missed or frames dropped", n)
	}
}

// When events are missed nobody can say which entries are wrong, so all of them
// go, in all three caches.
func TestInstance_MissedClearsEveryCache(t *testing.T) {
	s := newSite(t, 2)
	looks := []string{"/roles", "/missed", "/link/11", "/link/5", "/workflow/in-step", "/"}
	for _, look := range looks {
		s.do(1, "GET", look)
		if w := s.do(1, "GET", look); cacheOf(w) != "hit" {
			t.Fatalf("%s: a %s", look, cacheOf(w))
		}
	}
	if err := s.instances[0].Cut(); err != nil {
		t.Fatal(err)
	}
	s.do(2, "POST", "/edit/roles", "title", "T", "body", "While it was cut off.")
	if w := s.do(1, "GET", "/roles"); cacheOf(w) != "hit" || strings.Contains(w.Body.String(), "While it was cut off.") {
		t.Error("the cut network lets the event through")
	}
	// What is on its way when the network is connected again may arrive after all.
	// Frames keep their order, so two more have passed the event.
	if err := s.instances[1].broker.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	flushed, _ := s.instances[0].cable.Lost()
	eventually(t, "the event has vanished", func() bool {
		in, _ := s.instances[0].cable.Lost()
		return in >= flushed+2
	})
	s.instances[0].cable.Mute(true) // or it would ask for the event, and get it
	if err := s.instances[0].Heal(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the miss is reported", func() bool { return s.count(KindMissed, "") > 0 })
	s.instances[0].cable.Mute(false)
	for _, look := range looks {
		// A look at a page fills in its state as well, and the list those of all.
		if w := s.do(1, "GET", look); cacheOf(w) != "miss" {
			t.Errorf("%s after the miss: a %s", look, cacheOf(w))
		}
	}
	if w := s.do(1, "GET", "/roles"); !strings.Contains(w.Body.String(), "While it was cut off.") {
		t.Error("the page is still the old one")
	}
	if c := s.instances[0].Counters(); c.Missed != 1 || c.Dropped == 0 {
		t.Errorf("counters: %+v", c)
	}
	if n := s.count(KindMissed, ""); n != 1 {
		t.Errorf("%d misses reported, want 1", n)
	}
	if n := s.count(KindNote, ""); n != 2 {
		t.Errorf("%d notes on the network, want 2", n)
	}
}

// A change that is published after a new instance has loaded its caches and
// before it is enabled: the event is held, and drops what was loaded.
func TestInstance_ChangeBeforeEnableIsNotLost(t *testing.T) {
	s := newSite(t, 1)
	done := make(chan struct{})
	in := s.open(2, func(cfg *Config) {
		cfg.onLoaded = func(in *Instance) {
			defer close(done)
			if w := s.do(1, "POST", "/edit/roles", "title", "T", "body", "Published meanwhile."); w.Code != http.StatusSeeOther {
				t.Errorf("%d", w.Code)
			}
			eventually(t, "the event is held", func() bool { return in.broker.Stats().Queues.HeldEvents == 1 })
		}
	})
	<-done
	s.instances = append(s.instances, in)
	eventually(t, "the held event is delivered", func() bool { return s.count(KindReceived, pageChangedName) == 1 })
	eventually(t, "the page is fresh", func() bool { return strings.Contains(s.do(2, "GET", "/roles").Body.String(), "Published meanwhile.") })
}

func TestInstance_WithoutEventsHearsOnlyItself(t *testing.T) {
	s := newSite(t, 0)
	off := func(cfg *Config) { cfg.Provider, cfg.Database = nil, nil }
	s.instances = []*Instance{s.open(1, off), s.open(2, off)}
	s.do(2, "POST", "/edit/roles", "title", "T", "body", "New.")
	if w := s.do(2, "GET", "/roles"); cacheOf(w) != "miss" || !strings.Contains(w.Body.String(), "New.") {
		t.Errorf("instance 2: a %s", cacheOf(w))
	}
	if w := s.do(1, "GET", "/roles"); cacheOf(w) != "hit" || strings.Contains(w.Body.String(), "New.") {
		t.Errorf("instance 1: a %s", cacheOf(w))
	}
	if err := s.instances[0].Cut(); !errors.Is(err, errEventsOff) {
		t.Errorf("Cut: %v", err)
	}
	if err := s.instances[0].Heal(); !errors.Is(err, errEventsOff) {
		t.Errorf("Heal: %v", err)
	}
}

func TestEvents_ReadRefusesWhatSubscribersCannotDecode(t *testing.T) {
	e := defineEvents()
	for _, tt := range []struct {
		name    string
		id      carillon.ID
		payload string
		ok      bool
		slug    string
	}{
		{"as it is raised", e.page.ID(), `{"change":1,"slug":"roles"}`, true, "roles"},
		{"text", e.page.ID(), `hi`, false, ""},
		{"another type", e.link.ID(), `{"slug":1}`, false, ""},
		{"none", e.workflow.ID(), ``, false, ""},
		{"a field that only another event has", e.page.ID(), `{"slug":"roles","state":1}`, true, "roles"},
		{"of somebody else", carillon.NewID(), `hi`, true, ""},
	} {
		got, ok := e.read(carillon.Received{Event: tt.id, Payload: []byte(tt.payload)})
		if ok != tt.ok || got.Slug != tt.slug {
			t.Errorf("%s: %+v, %v; want %q, %v", tt.name, got, ok, tt.slug, tt.ok)
		}
	}
}

func TestInstance_PostNotice(t *testing.T) {
	s := newSite(t, 2)
	if err := s.instances[1].PostNotice(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is seen on the other", func() bool {
		return strings.Contains(s.do(1, "GET", "/notice-board").Body.String(), "Instance 2 posted this notice at ")
	})
}

// The change is committed and cannot be announced: the editor is told, and the
// own instance is right.
func TestInstance_SaysWhenTheOthersWereNotTold(t *testing.T) {
	s := newSite(t, 1)
	in := s.instances[0]
	in.server.publisher.announce = silentAnnouncer{in}
	w := s.do(1, "POST", "/edit/roles", "title", "T", "body", "New.")
	if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "the others were not told") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// silentAnnouncer fails to announce.
type silentAnnouncer struct{ announcer }

func (silentAnnouncer) pageChanged(context.Context, PageChanged) error { return carillon.ErrUnsent }

func TestServer_Routes(t *testing.T) {
	s := newSite(t, 1)
	long := strings.Repeat("x", maxBody+1)
	for _, tt := range []struct {
		name         string
		method, path string
		form         []string
		code         int
		shows        string
	}{
		{"list", "GET", "/", nil, 200, `<a href="/sequence-numbers">Sequence numbers</a>`},
		{"page", "GET", "/roles", nil, 200, "Not every process has the same part"},
		{"head", "HEAD", "/roles", nil, 200, ""},
		{"unknown page", "GET", "/nowhere", nil, 404, "There is no such page"},
		{"impossible address", "GET", "/A_B", nil, 404, "There is no such page"},
		{"deeper", "GET", "/a/b/c", nil, 404, "There is no such page"},
		{"edit", "GET", "/edit/roles", nil, 200, "Not every process"},
		{"edit of unknown", "GET", "/edit/nowhere", nil, 404, ""},
		{"publish", "POST", "/edit/roles", []string{"title", " A  title ", "body", "Body"}, 303, ""},
		{"published", "GET", "/roles", nil, 200, "<h1>A title</h1>"},
		{"publish unknown", "POST", "/edit/nowhere", []string{"title", "T", "body", "B"}, 404, ""},
		{"publish without title", "POST", "/edit/roles", []string{"title", " ", "body", "Kept text"}, 422, "Kept text"},
		{"publish without text", "POST", "/edit/roles", []string{"title", "Kept title"}, 422, "Kept title"},
		{"publish too long a title", "POST", "/edit/roles", []string{"title", long[:maxTitle+1], "body", "B"}, 422, "longer than"},
		{"publish too long a text", "POST", "/edit/roles", []string{"title", "T", "body", long}, 422, "longer than"},
		{"publish garbage", "POST", "/edit/roles", []string{"title", "T\xff", "body", "B"}, 422, "not valid UTF-8"},
		{"publish more than is read", "POST", "/edit/roles", []string{"body", strings.Repeat("x", maxForm)}, 413, ""},
		{"publish on an old revision", "POST", "/edit/roles", []string{"title", "T", "body", "Mine", "revision", "1"}, 409, "Somebody has published revision 2"},
		{"the text is kept", "POST", "/edit/roles", []string{"title", "T", "body", "Mine", "revision", "1"}, 409, "Mine"},
		{"publish on the current revision", "POST", "/edit/roles", []string{"title", "T", "body", "Mine", "revision", "2"}, 303, ""},
		{"escapes", "POST", "/edit/roles", []string{"title", `<script>alert("1")</script>`, "body", `<img src=x onerror=alert(1)> & "q"`}, 303, ""},
		{"escaped", "GET", "/roles", nil, 200, `&lt;img src=x onerror=alert(1)&gt; &amp; &#34;q&#34;`},
		{"escaped in the form", "GET", "/edit/roles", nil, 200, `value="&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;"`},
		{"escaped in the list", "GET", "/", nil, 200, `&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;</a>`},
		{"rename form", "GET", "/rename/roles", nil, 200, `value="roles"`},
		{"rename badly", "POST", "/rename/roles", []string{"slug", "a/b"}, 422, "not possible"},
		{"rename to a word of the site", "POST", "/rename/roles", []string{"slug", "workflow"}, 422, "not possible"},
		{"rename to another's address", "POST", "/rename/roles", []string{"slug", "missed"}, 409, "Another page"},
		{"rename unknown", "POST", "/rename/nowhere", []string{"slug", "x"}, 404, ""},
		{"link", "GET", "/link/4", nil, 302, ""},
		{"unknown link", "GET", "/link/99", nil, 404, ""},
		{"no link", "GET", "/link/x", nil, 404, ""},
		{"board", "GET", "/workflow/", nil, 200, "Sequence numbers"},
		{"board without slash", "GET", "/workflow", nil, 301, ""},
		{"work of unknown", "GET", "/workflow/nowhere", nil, 404, ""},
		{"draft without title", "POST", "/workflow/missed", []string{"action", "save", "body", "Kept text"}, 422, "Kept text"},
		{"unknown action", "POST", "/workflow/missed", []string{"action", "format"}, 400, "no action"},
		{"approve what is not in review", "POST", "/workflow/missed", []string{"action", "publish"}, 409, "Somebody was quicker"},
		{"submit with a text", "POST", "/workflow/missed", []string{"action", "submit", "title", "T", "body", "B"}, 303, ""},
		{"save in review", "POST", "/workflow/missed", []string{"action", "save", "title", "T", "body", "B"}, 409, "Somebody was quicker"},
		{"discard in review", "POST", "/workflow/missed", []string{"action", "discard"}, 303, ""},
		{"discard nothing", "POST", "/workflow/missed", []string{"action", "discard"}, 409, "Somebody was quicker"},
		{"style", "GET", "/static/site.css", nil, 200, ".bar"},
		{"no file", "GET", "/static/nowhere.css", nil, 404, ""},
		{"wrong method", "DELETE", "/roles", nil, 405, ""},
	} {
		w := s.do(1, tt.method, tt.path, tt.form...)
		if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.shows) {
			t.Errorf("%s: %d, want %d and %q: %.500s", tt.name, w.Code, tt.code, tt.shows, w.Body)
		}
		if strings.Contains(w.Body.String(), "<script>alert") || strings.Contains(w.Body.String(), "ZgotmplZ") {
			t.Errorf("%s is not escaped", tt.name)
		}
	}
}

func TestServer_RefusesOtherSites(t *testing.T) {
	s := newSite(t, 1)
	for _, path := range []string{"/edit/roles", "/rename/roles", "/workflow/roles"} {
		for origin, want := range map[string]bool{"http://127.0.0.1:8081": true, "http://127.0.0.1:8082": false, "https://evil.example": false, "null": false} {
			r := httptest.NewRequest("POST", path, strings.NewReader("title=T&body=B&slug=roles&action=save"))
			r.Host = "127.0.0.1:8081"
			r.Header.Set("Origin", origin)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			s.instances[0].Handler().ServeHTTP(w, r)
			if ok := w.Code == http.StatusSeeOther; ok != want || !ok && w.Code != http.StatusForbidden {
				t.Errorf("POST %s from %s: %d", path, origin, w.Code)
			}
		}
	}
}

func TestServer_OnlyTheDashboardMayFrameIt(t *testing.T) {
	s := newSite(t, 0)
	for port, want := range map[int]string{0: "frame-ancestors 'none'", 8080: "frame-ancestors http://127.0.0.1:8080 http://localhost:8080"} {
		s.instances = []*Instance{s.open(1, func(cfg *Config) {
			cfg.Provider, cfg.Database, cfg.DashboardPort = nil, nil, port
		})}
		w := s.do(1, "GET", "/")
		if csp := w.Header().Get("Content-Security-Policy"); !strings.HasSuffix(csp, want) {
			t.Errorf("with dashboard %d: %s", port, csp)
		}
		if framed := strings.Contains(w.Body.String(), "frame.js"); framed != (port != 0) {
			t.Errorf("with dashboard %d: frame.js %v", port, framed)
		}
	}
}
