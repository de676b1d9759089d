package dashboard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/carillon-go/carillon/examples/cms"
)

func newHub(n int) *Hub {
	var all []Instance
	for i := range n {
		all = append(all, Instance{Index: i + 1, Port: 8081 + i, State: Running})
	}
	return NewHub(all)
}

// serve starts the dashboard of h; what it is asked to do comes out of the
// channel.
func serve(t *testing.T, h *Hub, fails error) (url string, asked <-chan string) {
	t.Helper()
	did := make(chan string, 16)
	srv := httptest.NewServer(h.Handler(Info{Provider: "tcp"}, func(_ context.Context, i int, a Action) error {
		did <- fmt.Sprint(i, " ", a)
		return fails
	}, slog.New(slog.DiscardHandler)))
	t.Cleanup(srv.Close)
	t.Cleanup(h.Close)
	return srv.URL, did
}

// events opens the stream and returns what yields one event after the other.
func events(t *testing.T, url, lastID string) (next func() (name, id, data string)) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Fatalf("content type %q", ct)
	}
	lines := bufio.NewScanner(resp.Body)
	return func() (name, id, data string) {
		for lines.Scan() {
			key, value, _ := strings.Cut(lines.Text(), ": ")
			switch key {
			case "event":
				name = value
			case "id":
				id = value
			case "data":
				data = value
			case "":
				if name != "" {
					return name, id, data
				}
			}
		}
		return "end", "", ""
	}
}

func TestEvents_TellThePastThenTheRest(t *testing.T) {
	h := newHub(2)
	h.Report(1, cms.Report{Kind: cms.KindRaised, Text: "first\nline"})
	url, _ := serve(t, h, nil)
	next := events(t, url, "")
	var got []string
	for range 4 {
		name, _, _ := next()
		got = append(got, name)
	}
	if want := "hello instance instance report"; strings.Join(got, " ") != want {
		t.Fatalf("the stream begins with %q, want %q", got, want)
	}
	h.Update(2, func(in *Instance) { in.Cut = true })
	h.Update(2, func(in *Instance) { in.Cut = true }) // no change, nothing to tell
	h.Report(2, cms.Report{Kind: cms.KindMissed, Count: 3})
	name, _, data := next()
	var in Instance
	if err := json.Unmarshal([]byte(data), &in); err != nil || name != "instance" || in.Index != 2 || !in.Cut {
		t.Errorf("after a change: %s %s, %v", name, data, err)
	}
	name, id, data := next()
	if name != "report" || !strings.HasSuffix(id, "-2") || !strings.Contains(data, `"instance":2`) || !strings.Contains(data, `"count":3`) {
		t.Errorf("after a report: %s %s %s", name, id, data)
	}
	h.Close()
	if name, _, _ := next(); name != "end" {
		t.Errorf("after Close: %s", name)
	}
}

func TestEvents_ComeBackWhereTheyWere(t *testing.T) {
	h := newHub(1)
	for range 3 {
		h.Report(1, cms.Report{Kind: cms.KindNote})
	}
	url, _ := serve(t, h, nil)
	for _, tt := range []struct {
		last string
		want string
	}{
		{"", "1 2 3"},
		{h.run + "-2", "3"},
		{"otherrun-2", "1 2 3"},
		{"nonsense", "1 2 3"},
	} {
		next := events(t, url, tt.last)
		var got []string
		for len(got) < len(strings.Fields(tt.want)) {
			if name, id, _ := next(); name == "report" {
				got = append(got, strings.TrimPrefix(id, h.run+"-"))
			} else if name == "end" {
				break
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("Last-Event-ID %q: reports %v, want %s", tt.last, got, tt.want)
		}
	}
}

// A browser that does not read holds up nobody, and memory stays bounded.
func TestHub_SendsSlowBrowsersAway(t *testing.T) {
	h := newHub(1)
	v, ok := h.watch(0)
	if !ok {
		t.Fatal("not let in")
	}
	for range ringLen + queueLen {
		h.Report(1, cms.Report{Kind: cms.KindNote})
	}
	n := 0
	for range v.queue { // it is closed, else this would not end
		n++
	}
	if n != queueLen || len(h.ring) > ringLen {
		t.Errorf("%d messages were queued, %d are kept; the limits are %d and %d", n, len(h.ring), queueLen, ringLen)
	}
	if _, ok := h.watch(0); !ok {
		t.Error("it may not come back")
	}
}

func TestHub_LimitsBrowsers(t *testing.T) {
	h := newHub(1)
	for range maxViewer {
		if _, ok := h.watch(0); !ok {
			t.Fatal("not let in")
		}
	}
	v, ok := h.watch(0)
	if ok {
		t.Error("one too many was let in")
	}
	_ = v
	url, _ := serve(t, h, nil)
	resp, err := http.Get(url + "/events")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestActions(t *testing.T) {
	url, asked := serve(t, newHub(2), nil)
	failing, _ := serve(t, newHub(2), errors.New("it is not running"))
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, tt := range []struct {
		method, url, origin string
		want                int
		asked               string
	}{
		{"POST", url + "/instances/1/cut", "", 303, "1 cut"},
		{"POST", url + "/instances/2/kill", url, 303, "2 kill"},
		{"POST", url + "/instances/2/kill", "https://evil.example", 403, ""},
		{"POST", url + "/instances/2/kill", "http://127.0.0.1:8081", 403, ""}, // a page on an instance
		{"GET", url + "/instances/2/kill", "", 405, ""},
		{"POST", url + "/instances/0/cut", "", 404, ""},
		{"POST", url + "/instances/3/cut", "", 404, ""},
		{"POST", url + "/instances/x/cut", "", 404, ""},
		{"POST", url + "/instances/1/format", "", 404, ""},
		{"POST", failing + "/instances/1/cut", "", 409, ""},
	} {
		req, err := http.NewRequest(tt.method, tt.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.origin != "" {
			req.Header.Set("Origin", tt.origin)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s %s from %q: %d, want %d", tt.method, tt.url, tt.origin, resp.StatusCode, tt.want)
		}
		var got string
		select {
		case got = <-asked:
		default:
		}
		if got != tt.asked {
			t.Errorf("%s %s from %q did %q, want %q", tt.method, tt.url, tt.origin, got, tt.asked)
		}
	}
}

func TestDashboard_ShowsEveryInstance(t *testing.T) {
	url, _ := serve(t, newHub(16), nil)
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var page strings.Builder
	if _, err := bufio.NewReader(resp.Body).WriteTo(&page); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(page.String(), "<iframe "); n != 16 {
		t.Errorf("%d frames", n)
	}
	if strings.Contains(page.String(), "ZgotmplZ") {
		t.Error("the template filtered something")
	}
}
