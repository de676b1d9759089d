// Package cms is the demonstration: a small content site that runs in several
// processes at once and keeps their caches in step with events.
//
// It shows the three built-in consumers of such a system. Each is a cache in
// memory with an event of its own: the page cache (pages.go), the map of
// permanent links (links.go) and the states of the editing workflow
// (workflow.go). [Open] shows the order in which an application starts: site
// database, Broker, caches, Enable.
//
// The content is kept in the same SQLite file that serves as the site database
// (store.go). Everything else is an ordinary web application.
package cms
