package dashboard

import (
	"context"
	"embed"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-go/carillon/examples/cms"
	"github.com/carillon-go/carillon/examples/cms/web"
)

// An Action is what a person can do to an instance.
type Action string

const (
	Notice Action = "notice" // post a notice on it
	Cut    Action = "cut"    // cut its network
	Heal   Action = "heal"   // connect its network again
	Kill   Action = "kill"   // end its process by the signal that cannot be caught
	Start  Action = "start"  // start it again after it ended
)

var actions = []Action{Notice, Cut, Heal, Kill, Start}

// Info is what does not change while the demonstration runs.
type Info struct {
	Provider string // "tcp", "udp", or "" when events are off
}

// Handler returns the dashboard. do is called from many goroutines; its error
// is shown to the person.
func (h *Hub) Handler(info Info, do func(ctx context.Context, index int, a Action) error, log *slog.Logger) http.Handler {
	s := &server{hub: h, info: info, do: do, log: log}
	assets := web.NewAssets(static)
	s.tmpl = template.Must(template.New("").Funcs(template.FuncMap{"asset": assets.URL}).ParseFS(templates, "templates/*.html"))

	mux := http.NewServeMux()
	mux.Handle("GET /static/{file}", assets)
	mux.HandleFunc("GET /{$}", s.getDashboard)
	mux.HandleFunc("GET /events", s.getEvents)
	mux.HandleFunc("GET /instances", s.getInstances)
	mux.HandleFunc("POST /instances/{index}/{action}", s.postAction)

	// The instances are the same machine under other ports.
	const csp = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; frame-src "
	return web.Guard(mux, csp+"http://127.0.0.1:* http://localhost:*")
}

var (
	//go:embed templates/*.html
	templates embed.FS
	//go:embed static
	static embed.FS
)

type server struct {
	hub  *Hub
	info Info
	do   func(context.Context, int, Action) error
	log  *slog.Logger
	tmpl *template.Template
}

func (s *server) getDashboard(w http.ResponseWriter, r *http.Request) {
	instances := s.hub.Instances()
	host := web.HostName(r.Host)
	if strings.Contains(host, ":") {
		host = "127.0.0.1" // the instances listen there, whatever this one was called
	}
	err := web.Render(w, s.tmpl, "dashboard", http.StatusOK, struct {
		Info
		Host      string
		Run       string
		Instances []Instance
		Pages     []cms.SeedPage
		First     int64
	}{s.info, host, s.hub.run, instances, cms.SeedPages(), cms.NoticeBoard})
	if err != nil {
		s.log.Warn("dashboard not sent", "error", err)
	}
}

func (s *server) getInstances(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(append(encode(s.hub.Instances()), '\n')) // the browser has gone
}

// getEvents streams what happens, as server-sent events.
func (s *server) getEvents(w http.ResponseWriter, r *http.Request) {
	// Browsers say where they were when they come back; a number of another run
	// means nothing here.
	var after uint64
	if run, n, ok := strings.Cut(r.Header.Get("Last-Event-ID"), "-"); ok && run == s.hub.run {
		after, _ = strconv.ParseUint(n, 10, 64)
	}
	v, ok := s.hub.watch(after)
	if !ok {
		http.Error(w, "Too many browsers are watching.", http.StatusServiceUnavailable)
		return
	}
	defer s.hub.leave(v)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	alive := time.NewTicker(15 * time.Second)
	defer alive.Stop()
	write := func(format string, args ...any) bool {
		// A browser that stopped reading must not hold the connection for ever.
		if err := rc.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return false
		}
		_, err := fmt.Fprintf(w, format, args...)
		return err == nil
	}
	if !write("retry: 1000\n\n") {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case <-alive.C:
			if !write(": alive\n\n") {
				return
			}
		case m, ok := <-v.queue:
			if !ok {
				return
			}
			if m.id != 0 && !write("id: %s-%d\n", s.hub.run, m.id) {
				return
			}
			if !write("event: %s\ndata: %s\n\n", m.name, m.data) {
				return
			}
			if len(v.queue) > 0 {
				continue // flush once for all that is waiting
			}
		}
		if err := rc.Flush(); err != nil {
			return
		}
	}
}

func (s *server) postAction(w http.ResponseWriter, r *http.Request) {
	index, err := strconv.Atoi(r.PathValue("index"))
	if err != nil || index < 1 || index > len(s.hub.Instances()) {
		http.Error(w, "There is no such instance.", http.StatusNotFound)
		return
	}
	a := Action(r.PathValue("action"))
	if !slices.Contains(actions, a) {
		http.Error(w, "There is no such action.", http.StatusNotFound)
		return
	}
	if err := s.do(r.Context(), index, a); err != nil {
		http.Error(w, fmt.Sprintf("Instance %d: %v.", index, err), http.StatusConflict)
		return
	}
	// Without JavaScript the form leads back here.
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
