package cms

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/carillon-go/carillon/examples/cms/web"
)

const (
	maxTitle = 200       // characters
	maxBody  = 64 * 1024 // characters
	maxForm  = 512 * 1024
)

var (
	//go:embed templates/*.html
	templates embed.FS
	//go:embed static
	static embed.FS
)

// A server answers the requests of visitors and editors of one instance. What
// it shows comes from the caches; what it changes goes to the publisher.
type server struct {
	instance      int
	dashboardPort int // 0: there is no dashboard
	pages         *pageCache
	links         *linkMap
	workflow      *workflowCache
	publisher     *publisher
	count         *cacheCount
	log           *slog.Logger
	tmpl          *template.Template
}

// handler returns the whole site of the instance.
func (s *server) handler() http.Handler {
	assets := web.NewAssets(static)
	s.tmpl = template.Must(template.New("").Funcs(template.FuncMap{
		"asset": assets.URL,
		"clock": func(t time.Time) string { return t.Format("15:04:05") },
		"step": func(slug, action, label, class string) any {
			return struct{ Slug, Action, Label, Class string }{slug, action, label, class}
		},
	}).ParseFS(templates, "templates/*.html"))

	mux := http.NewServeMux()
	mux.Handle("GET /static/{file}", assets)
	mux.HandleFunc("GET /{$}", s.getList)
	mux.HandleFunc("GET /{slug}", s.getPage)
	mux.HandleFunc("GET /edit/{slug}", s.getEdit)
	mux.HandleFunc("POST /edit/{slug}", s.postEdit)
	mux.HandleFunc("GET /rename/{slug}", s.getRename)
	mux.HandleFunc("POST /rename/{slug}", s.postRename)
	mux.HandleFunc("GET /link/{id}", s.getLink)
	mux.HandleFunc("GET /workflow/{$}", s.getBoard)
	mux.Handle("GET /workflow", http.RedirectHandler("/workflow/", http.StatusMovedPermanently))
	mux.HandleFunc("GET /workflow/{slug}", s.getWork)
	mux.HandleFunc("POST /workflow/{slug}", s.postWork)
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) { s.fail(w, r, errNotFound) })

	csp := "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors "
	if s.dashboardPort == 0 {
		csp += "'none'"
	} else {
		csp += fmt.Sprintf("http://127.0.0.1:%d http://localhost:%d", s.dashboardPort, s.dashboardPort)
	}
	return web.Guard(mux, csp)
}

// A view is what every template gets.
type view struct {
	Title         string
	Section       string // "pages" or "workflow"
	Instance      int
	DashboardPort int
	Cache         string // "hit", "miss", or empty where no cache was asked
	PageID        int64  // of the page shown, or 0
	Revision      int64
	Data          any
}

// A listed page has its state beside it.
type listed struct {
	page
	Lead   string
	Work   work
	Blocks []block
}

func (s *server) render(w http.ResponseWriter, name string, status int, v view) {
	v.Instance, v.DashboardPort = s.instance, s.dashboardPort
	if v.Cache != "" {
		w.Header().Set("X-Cache", v.Cache)
	}
	if err := web.Render(w, s.tmpl, name, status, v); err != nil {
		s.log.Warn("page not sent", "error", err)
	}
}

// cached counts a look into a cache and returns the word for it.
func (s *server) cached(hit bool) string {
	if hit {
		s.count.hits.Add(1)
		return "hit"
	}
	s.count.misses.Add(1)
	return "miss"
}

func (s *server) getList(w http.ResponseWriter, r *http.Request) {
	all, hit, err := s.pages.all(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	list, _, err := s.withWork(r.Context(), all)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.render(w, "list", http.StatusOK, view{Title: "Pages", Section: "pages", Cache: s.cached(hit), Data: list})
}

// withWork adds the state of each page, and reports whether all were cached.
func (s *server) withWork(ctx context.Context, pages []page) (list []listed, hit bool, err error) {
	hit = true
	for _, p := range pages {
		wk, h, err := s.workflow.work(ctx, p.ID)
		if err != nil {
			return nil, false, err
		}
		hit = hit && h
		list = append(list, listed{page: p, Lead: lead(p.Body), Work: wk})
	}
	return list, hit, nil
}

func (s *server) getPage(w http.ResponseWriter, r *http.Request) {
	p, hit, err := s.pages.page(r.Context(), r.PathValue("slug"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	wk, _, err := s.workflow.work(r.Context(), p.ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.render(w, "page", http.StatusOK, view{
		Title: p.Title, Section: "pages", Cache: s.cached(hit), PageID: p.ID, Revision: p.Revision,
		Data: listed{page: p, Work: wk, Blocks: blocks(p.Body)},
	})
}

// An editForm is what the edit template shows.
type editForm struct {
	Slug, Title, Body string
	Revision          int64
	Problem           string
	MaxTitle, MaxBody int
}

func (s *server) getEdit(w http.ResponseWriter, r *http.Request) {
	// Not from the cache: who changes a text should see the newest one.
	p, err := s.pages.store.page(r.Context(), r.PathValue("slug"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.showEdit(w, http.StatusOK, editForm{Slug: p.Slug, Title: p.Title, Body: p.Body, Revision: p.Revision})
}

func (s *server) showEdit(w http.ResponseWriter, status int, f editForm) {
	f.MaxTitle, f.MaxBody = maxTitle, maxBody
	s.render(w, "edit", status, view{Title: "Edit " + f.Title, Section: "pages", Data: f})
}

func (s *server) postEdit(w http.ResponseWriter, r *http.Request) {
	f := editForm{Slug: r.PathValue("slug")}
	var ok bool
	if f.Title, f.Body, ok = s.readText(w, r); !ok {
		return
	}
	// A form without a revision replaces whatever is there.
	f.Revision, _ = strconv.ParseInt(r.PostForm.Get("revision"), 10, 64)
	if f.Problem = checkText(f.Title, f.Body); f.Problem != "" {
		s.showEdit(w, http.StatusUnprocessableEntity, f)
		return
	}
	err := s.publisher.publish(r.Context(), f.Slug, f.Title, f.Body, f.Revision)
	if conflict, ok := errors.AsType[*conflictError](err); ok {
		f.Problem = fmt.Sprintf("Somebody has published revision %d since you opened this form. Your text is below; publish again to replace theirs.", conflict.now.Revision)
		f.Revision = conflict.now.Revision
		s.showEdit(w, http.StatusConflict, f)
		return
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	http.Redirect(w, r, "/"+f.Slug, http.StatusSeeOther)
}

// readText reads title and body of a form. If it returns false the request is
// answered already.
func (s *server) readText(w http.ResponseWriter, r *http.Request) (title, body string, ok bool) {
	if !s.readForm(w, r) {
		return "", "", false
	}
	title = strings.Join(strings.Fields(r.PostForm.Get("title")), " ")
	body = strings.TrimSpace(strings.ReplaceAll(r.PostForm.Get("body"), "\r\n", "\n"))
	return title, body, true
}

func (s *server) readForm(w http.ResponseWriter, r *http.Request) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	// Both encodings of a form are read, and within the limit both fit into
	// memory.
	err := r.ParseForm()
	if err == nil {
		err = r.ParseMultipartForm(maxForm)
	}
	if err != nil && !errors.Is(err, http.ErrNotMultipart) {
		status := http.StatusBadRequest
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, "The form could not be read: "+err.Error(), status)
		return false
	}
	return true
}

// checkText says what is wrong with a text, in words for its author.
func checkText(title, body string) string {
	switch {
	case !utf8.ValidString(title) || !utf8.ValidString(body):
		return "The text is not valid UTF-8."
	case title == "":
		return "A page needs a title."
	case utf8.RuneCountInString(title) > maxTitle:
		return fmt.Sprintf("The title is longer than %d characters.", maxTitle)
	case body == "":
		return "A page needs a text."
	case utf8.RuneCountInString(body) > maxBody:
		return fmt.Sprintf("The text is longer than %d characters.", maxBody)
	}
	return ""
}

// A renameForm is what the rename template shows.
type renameForm struct {
	ID                   int64
	Current, Slug, Title string
	Problem              string
}

func (s *server) getRename(w http.ResponseWriter, r *http.Request) {
	p, err := s.pages.store.page(r.Context(), r.PathValue("slug"))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.showRename(w, http.StatusOK, renameForm{ID: p.ID, Current: p.Slug, Slug: p.Slug, Title: p.Title})
}

func (s *server) showRename(w http.ResponseWriter, status int, f renameForm) {
	s.render(w, "rename", status, view{Title: "Rename " + f.Title, Section: "pages", Data: f})
}

func (s *server) postRename(w http.ResponseWriter, r *http.Request) {
	if !s.readForm(w, r) {
		return
	}
	slug := r.PathValue("slug")
	to := strings.ToLower(strings.TrimSpace(r.PostForm.Get("slug")))
	err := s.publisher.rename(r.Context(), slug, to)
	var problem string
	status := http.StatusUnprocessableEntity
	switch {
	case errors.Is(err, errSlugBad):
		problem = "This address is not possible: use small letters, digits and single hyphens, at most 80 of them, and none of the words that the site uses itself."
	case errors.Is(err, errSlugTaken):
		problem, status = "Another page has this address.", http.StatusConflict
	case err != nil:
		s.fail(w, r, err)
		return
	default:
		http.Redirect(w, r, "/"+to, http.StatusSeeOther)
		return
	}
	p, err := s.pages.store.page(r.Context(), slug)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.showRename(w, status, renameForm{ID: p.ID, Current: p.Slug, Slug: to, Title: p.Title, Problem: problem})
}

func (s *server) getLink(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		s.fail(w, r, errNotFound)
		return
	}
	slug, hit, err := s.links.resolve(r.Context(), id)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("X-Cache", s.cached(hit))
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, "/"+slug, http.StatusFound)
}

func (s *server) getBoard(w http.ResponseWriter, r *http.Request) {
	all, _, err := s.pages.all(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	list, hit, err := s.withWork(r.Context(), all)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.render(w, "board", http.StatusOK, view{Title: "Workflow", Section: "workflow", Cache: s.cached(hit), Data: list})
}

// A workForm is what the work template shows.
type workForm struct {
	Slug, Title           string // of the published page
	Work                  work
	WorkBlocks            []block
	DraftTitle, DraftBody string
	Problem               string
	MaxTitle, MaxBody     int
}

func (s *server) getWork(w http.ResponseWriter, r *http.Request) {
	s.showWork(w, r, http.StatusOK, workForm{Slug: r.PathValue("slug")})
}

// showWork fills in what f does not have.
func (s *server) showWork(w http.ResponseWriter, r *http.Request, status int, f workForm) {
	p, _, err := s.pages.page(r.Context(), f.Slug)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	wk, hit, err := s.workflow.work(r.Context(), p.ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	f.Title, f.Work, f.WorkBlocks = p.Title, wk, blocks(wk.Body)
	f.MaxTitle, f.MaxBody = maxTitle, maxBody
	switch {
	case f.DraftTitle != "" || f.DraftBody != "": // what was typed
	case wk.State == statePublished:
		f.DraftTitle, f.DraftBody = p.Title, p.Body
	default:
		f.DraftTitle, f.DraftBody = wk.Title, wk.Body
	}
	s.render(w, "work", status, view{
		Title: "Workflow of " + p.Title, Section: "workflow", Cache: s.cached(hit), Data: f,
	})
}

func (s *server) postWork(w http.ResponseWriter, r *http.Request) {
	title, body, ok := s.readText(w, r)
	if !ok {
		return
	}
	slug := r.PathValue("slug")
	p, err := s.pages.store.page(r.Context(), slug)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	action := r.PostForm.Get("action")
	if action == "save" || action == "submit" && title+body != "" {
		if problem := checkText(title, body); problem != "" {
			s.showWork(w, r, http.StatusUnprocessableEntity, workForm{Slug: slug, DraftTitle: title, DraftBody: body, Problem: problem})
			return
		}
	}
	switch action {
	case "save":
		err = s.publisher.saveDraft(r.Context(), p, title, body)
	case "submit":
		if title+body != "" {
			if err = s.publisher.saveDraft(r.Context(), p, title, body); err != nil {
				break
			}
		}
		err = s.publisher.move(r.Context(), p, stateDraft, stateReview)
	case "return":
		err = s.publisher.move(r.Context(), p, stateReview, stateDraft)
	case "discard":
		err = s.publisher.discard(r.Context(), p)
	case "publish":
		err = s.publisher.approve(r.Context(), p)
	default:
		http.Error(w, fmt.Sprintf("The workflow has no action %q; it has save, submit, return, discard and publish.", action), http.StatusBadRequest)
		return
	}
	if e, ok := errors.AsType[*stateError](err); ok {
		s.showWork(w, r, http.StatusConflict, workForm{Slug: slug, DraftTitle: title, DraftBody: body,
			Problem: fmt.Sprintf("Somebody was quicker: this page is in state “%s” by now, so that could not be done.", e.is.Word())})
		return
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if action == "publish" {
		http.Redirect(w, r, "/"+slug, http.StatusSeeOther)
		return
	}
	http.Redirect(w, r, "/workflow/"+slug, http.StatusSeeOther)
}

// A problem is what the problem template shows.
type problem struct{ Head, Text, Href, Next string }

// fail answers with a page about err.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := problem{Href: "/", Next: "All pages"}
	status := http.StatusInternalServerError
	if untold, ok := errors.AsType[*untoldError](err); ok {
		p.Head = "Saved, but the others were not told"
		p.Text = fmt.Sprintf("The change is in the database and this instance shows it. Announcing it failed: %v. Other instances may show an old copy until they hear of this page again.", untold.err)
		p.Href, p.Next = "/"+untold.slug, "To the page"
	} else if errors.Is(err, errNotFound) {
		status = http.StatusNotFound
		p.Head, p.Text = "There is no such page", "It may have been renamed. A permanent link would have followed it."
	} else {
		s.log.Warn("request failed", "path", r.URL.Path, "error", err)
		p.Head, p.Text = "That did not work", "The database could not be asked. Try again in a moment."
	}
	s.render(w, "problem", status, view{Title: p.Head, Section: "pages", Data: p})
}
