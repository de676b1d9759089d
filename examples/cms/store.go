package cms

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// DSN returns the data source name for the SQLite file at path, for the driver
// modernc.org/sqlite. Readers do not wait for the writer, and writers wait for
// each other instead of failing.
func DSN(file string) string {
	q := url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(NORMAL)", "foreign_keys(1)"},
		"_txlock": {"immediate"},
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// A page is what visitors see.
type page struct {
	ID        int64 // for life; the number in the permanent link
	Slug      string
	Title     string
	Body      string
	Revision  int64 // grows by one with every change
	By        int   // index of the instance that published it; 0 is the seed
	Published time.Time
}

// State is where a page stands in the workflow. The zero State means that
// there is no work in progress.
type state string

const (
	statePublished state = "" // what is published is all there is
	stateDraft     state = "draft"
	stateReview    state = "review"
)

// Word returns s as people read it.
func (s state) Word() string {
	if s == statePublished {
		return "published"
	}
	return string(s)
}

// A work is a page's work in progress.
type work struct {
	Page    int64
	State   state
	Title   string
	Body    string
	By      int // index of the instance where it was last changed
	Changed time.Time
}

var (
	errNotFound  = errors.New("no such page")
	errSlugTaken = errors.New("the address is taken")
	errSlugBad   = errors.New("the address is not possible")
)

// A conflictError reports that somebody else was quicker.
type conflictError struct{ now page }

func (e *conflictError) Error() string {
	return fmt.Sprintf("the page is at revision %d by now", e.now.Revision)
}

// A stateError reports a step that the workflow does not have.
type stateError struct{ is, needs state }

func (e *stateError) Error() string {
	return fmt.Sprintf("the page is %q by now, and this needs %q", e.is.Word(), e.needs.Word())
}

// A store keeps pages and their work in progress in the shared database. It is
// safe for concurrent use, by any number of processes.
type store struct {
	db  *sql.DB
	now func() time.Time
}

const schema = `
CREATE TABLE IF NOT EXISTS cms_page (
	id        INTEGER PRIMARY KEY,
	slug      TEXT NOT NULL UNIQUE,
	title     TEXT NOT NULL,
	body      TEXT NOT NULL,
	revision  INTEGER NOT NULL,
	by        INTEGER NOT NULL,
	published INTEGER NOT NULL -- Unix milliseconds
);
CREATE TABLE IF NOT EXISTS cms_work (
	page    INTEGER PRIMARY KEY REFERENCES cms_page(id),
	state   TEXT NOT NULL CHECK (state IN ('draft', 'review')),
	title   TEXT NOT NULL,
	body    TEXT NOT NULL,
	by      INTEGER NOT NULL,
	changed INTEGER NOT NULL -- Unix milliseconds
);
CREATE TABLE IF NOT EXISTS cms_change (
	one INTEGER PRIMARY KEY CHECK (one = 1),
	n   INTEGER NOT NULL
);
INSERT OR IGNORE INTO cms_change (one, n) VALUES (1, 0);
`

// Prepare makes the tables of the demonstration and puts its pages into them,
// unless they are there already. Any number of processes may call it at once.
func Prepare(ctx context.Context, db *sql.DB) error {
	s := &store{db: db, now: time.Now}
	if err := s.prepare(ctx); err != nil {
		return fmt.Errorf("prepare the pages in the database: %w", err)
	}
	return nil
}

func (s *store) prepare(ctx context.Context) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, schema); err != nil {
			return err
		}
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM cms_page`).Scan(&n); err != nil || n > 0 {
			return err
		}
		for _, p := range seed() {
			_, err := tx.ExecContext(ctx, `INSERT INTO cms_page (id, slug, title, body, revision, by, published) VALUES (?, ?, ?, ?, 1, 0, ?)`,
				p.ID, p.Slug, p.Title, p.Body, s.now().UnixMilli())
			if err != nil {
				return err
			}
		}
		return nil
	})
}

//go:embed content/*.txt
var content embed.FS

// seed returns the pages that a new database starts with. A file is named
// "number-slug.txt"; its first line is the title.
func seed() []page {
	files, err := content.ReadDir("content")
	if err != nil {
		panic(err) // it is compiled in
	}
	var pages []page
	for _, f := range files {
		b, err := content.ReadFile(path.Join("content", f.Name()))
		if err != nil {
			panic(err)
		}
		title, body, _ := strings.Cut(string(b), "\n\n")
		var id int64
		var slug string
		if _, err := fmt.Sscanf(strings.TrimSuffix(f.Name(), ".txt"), "%d-%s", &id, &slug); err != nil {
			panic(fmt.Sprintf("content file %q: %v", f.Name(), err))
		}
		pages = append(pages, page{ID: id, Slug: slug, Title: title, Body: strings.TrimSpace(body)})
	}
	return pages
}

// NoticeBoard is the ID of the page that [Instance.PostNotice] writes on.
const NoticeBoard = 15

// write runs fn in a transaction that holds the write lock from its beginning.
func (s *store) write(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// nextChange counts a change of the content and returns its number.
func nextChange(ctx context.Context, tx *sql.Tx) (n int64, err error) {
	err = tx.QueryRowContext(ctx, `UPDATE cms_change SET n = n + 1 RETURNING n`).Scan(&n)
	return n, err
}

const pageColumns = `id, slug, title, body, revision, by, published`

type row interface{ Scan(...any) error }

func scanPage(r row) (p page, err error) {
	var at int64
	err = r.Scan(&p.ID, &p.Slug, &p.Title, &p.Body, &p.Revision, &p.By, &at)
	if errors.Is(err, sql.ErrNoRows) {
		err = errNotFound
	}
	p.Published = time.UnixMilli(at)
	return p, err
}

// pages returns all pages in their order.
func (s *store) pages(ctx context.Context) ([]page, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT `+pageColumns+` FROM cms_page ORDER BY id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []page
	for rows.Next() {
		p, err := scanPage(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, rows.Err()
}

// page returns the page at an address, or errNotFound.
func (s *store) page(ctx context.Context, slug string) (page, error) {
	return scanPage(s.db.QueryRowContext(ctx, `SELECT `+pageColumns+` FROM cms_page WHERE slug = ?`, slug))
}

// address returns the current slug of a page, or errNotFound.
func (s *store) address(ctx context.Context, id int64) (slug string, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT slug FROM cms_page WHERE id = ?`, id).Scan(&slug)
	if errors.Is(err, sql.ErrNoRows) {
		err = errNotFound
	}
	return slug, err
}

// A committed says what a write did: the page as it is now, the address it had
// before, and the number of the change.
type committed struct {
	page   page
	was    string // differs from page.Slug after a rename
	change int64
	also   bool // the work in progress ended with it
}

// publish replaces title and body of the page at slug. If revision is not zero
// the page must still be at that revision, else the error is a *conflictError.
func (s *store) publish(ctx context.Context, slug, title, body string, revision int64, by int) (c committed, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		old, err := scanPage(tx.QueryRowContext(ctx, `SELECT `+pageColumns+` FROM cms_page WHERE slug = ?`, slug))
		if err != nil {
			return err
		}
		if revision != 0 && old.Revision != revision {
			return &conflictError{old}
		}
		c, err = s.publishTx(ctx, tx, old, title, body, by)
		return err
	})
	return c, err
}

func (s *store) publishTx(ctx context.Context, tx *sql.Tx, old page, title, body string, by int) (c committed, err error) {
	c.was = old.Slug
	c.page, err = scanPage(tx.QueryRowContext(ctx,
		`UPDATE cms_page SET title = ?, body = ?, revision = revision + 1, by = ?, published = ? WHERE id = ? RETURNING `+pageColumns,
		title, body, by, s.now().UnixMilli(), old.ID))
	if err != nil {
		return c, err
	}
	c.change, err = nextChange(ctx, tx)
	return c, err
}

// notice writes on the notice board.
func (s *store) notice(ctx context.Context, title string, body func(revision int64) string, by int) (c committed, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		old, err := scanPage(tx.QueryRowContext(ctx, `SELECT `+pageColumns+` FROM cms_page WHERE id = ?`, NoticeBoard))
		if err != nil {
			return err
		}
		c, err = s.publishTx(ctx, tx, old, title, body(old.Revision), by)
		return err
	})
	return c, err
}

// rename moves the page at slug to another address. The error may be
// errNotFound, errSlugBad or errSlugTaken.
func (s *store) rename(ctx context.Context, slug, to string, by int) (c committed, err error) {
	if !possibleSlug(to) {
		return c, errSlugBad
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		old, err := scanPage(tx.QueryRowContext(ctx, `SELECT `+pageColumns+` FROM cms_page WHERE slug = ?`, slug))
		if err != nil {
			return err
		}
		c.was = old.Slug
		if to == old.Slug {
			c.page = old
			return nil
		}
		var taken int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM cms_page WHERE slug = ?`, to).Scan(&taken); err != nil {
			return err
		}
		if taken > 0 {
			return errSlugTaken
		}
		c.page, err = scanPage(tx.QueryRowContext(ctx,
			`UPDATE cms_page SET slug = ?, revision = revision + 1, by = ?, published = ? WHERE id = ? RETURNING `+pageColumns,
			to, by, s.now().UnixMilli(), old.ID))
		if err != nil {
			return err
		}
		c.change, err = nextChange(ctx, tx)
		return err
	})
	return c, err
}

const workColumns = `page, state, title, body, by, changed`

func scanWork(r row) (w work, err error) {
	var at int64
	err = r.Scan(&w.Page, &w.State, &w.Title, &w.Body, &w.By, &at)
	w.Changed = time.UnixMilli(at)
	return w, err
}

// work returns the work in progress on a page. None is no error: its state is
// statePublished.
func (s *store) work(ctx context.Context, id int64) (work, error) {
	w, err := scanWork(s.db.QueryRowContext(ctx, `SELECT `+workColumns+` FROM cms_work WHERE page = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return work{Page: id}, nil
	}
	return w, err
}

// works returns all work in progress.
func (s *store) works(ctx context.Context) ([]work, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT `+workColumns+` FROM cms_work`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []work
	for rows.Next() {
		w, err := scanWork(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, rows.Err()
}

// saveDraft begins work on a page, or changes a draft. A page in review must be
// sent back first.
func (s *store) saveDraft(ctx context.Context, id int64, title, body string, by int) (change int64, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		is, err := stateOf(ctx, tx, id)
		if err != nil {
			return err
		}
		if is == stateReview {
			return &stateError{is, stateDraft}
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO cms_work (page, state, title, body, by, changed) VALUES (?, 'draft', ?, ?, ?, ?)
			ON CONFLICT (page) DO UPDATE SET title = excluded.title, body = excluded.body, by = excluded.by, changed = excluded.changed`,
			id, title, body, by, s.now().UnixMilli())
		if err != nil {
			return err
		}
		change, err = nextChange(ctx, tx)
		return err
	})
	return change, err
}

// move changes the state of the work on a page, if it is what the caller thinks
// it is, else the error is a *stateError. statePublished discards the work.
func (s *store) move(ctx context.Context, id int64, from, to state, by int) (change int64, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		is, err := stateOf(ctx, tx, id)
		if err != nil {
			return err
		}
		if is != from {
			return &stateError{is, from}
		}
		if to == statePublished {
			_, err = tx.ExecContext(ctx, `DELETE FROM cms_work WHERE page = ?`, id)
		} else {
			_, err = tx.ExecContext(ctx, `UPDATE cms_work SET state = ?, by = ?, changed = ? WHERE page = ?`, to, by, s.now().UnixMilli(), id)
		}
		if err != nil {
			return err
		}
		change, err = nextChange(ctx, tx)
		return err
	})
	return change, err
}

// approve publishes the work on a page, which must be in review.
func (s *store) approve(ctx context.Context, id int64, by int) (c committed, err error) {
	err = s.write(ctx, func(tx *sql.Tx) error {
		is, err := stateOf(ctx, tx, id)
		if err != nil {
			return err
		}
		if is != stateReview {
			return &stateError{is, stateReview}
		}
		w, err := scanWork(tx.QueryRowContext(ctx, `DELETE FROM cms_work WHERE page = ? RETURNING `+workColumns, id))
		if err != nil {
			return err
		}
		old, err := scanPage(tx.QueryRowContext(ctx, `SELECT `+pageColumns+` FROM cms_page WHERE id = ?`, id))
		if err != nil {
			return err
		}
		c, err = s.publishTx(ctx, tx, old, w.Title, w.Body, by)
		c.also = true
		return err
	})
	return c, err
}

// stateOf reads the state of an existing page, else errNotFound.
func stateOf(ctx context.Context, tx *sql.Tx, id int64) (is state, err error) {
	err = tx.QueryRowContext(ctx, `SELECT coalesce(w.state, '') FROM cms_page p LEFT JOIN cms_work w ON w.page = p.id WHERE p.id = ?`, id).Scan(&is)
	if errors.Is(err, sql.ErrNoRows) {
		err = errNotFound
	}
	return is, err
}

var slugForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

// reserved are the first path segments that the site uses itself.
var reserved = []string{"edit", "rename", "link", "workflow", "static", "health"}

// possibleSlug reports whether a page can have this address.
func possibleSlug(s string) bool {
	return len(s) <= 80 && slugForm.MatchString(s) && !slices.Contains(reserved, s)
}

// A SeedPage is one of the pages that a new database starts with.
type SeedPage struct {
	ID    int64
	Title string
}

// SeedPages returns them in their order.
func SeedPages() []SeedPage {
	var all []SeedPage
	for _, p := range seed() {
		all = append(all, SeedPage{p.ID, p.Title})
	}
	return all
}
