// Package sim runs whole clusters of instances in one deterministic thread: the
// real machine, the real frames and tags, real keyrings, on a simulated clock,
// with simulated networks and site databases that fail in every way we can
// think of. Package history judges what happened.
//
// A [Plan] says what happens when, as text that people can read and edit.
// [Generate] makes one from a seed, [Run] carries it out, and [Shrink] makes a
// failing one smaller. The same plan always gives the same [Result].
//
// File guide: world.go is the clock and what is on it; verbs.go carries out the
// lines of a plan; generate.go invents plans. An instance does what package
// carillon does around the machine, in the same order: open.go joins, follow.go
// keeps rows and keys, send.go and receive.go move frames, dispatch.go tells
// subscribers, leave.go ends. network.go, datagram.go, ordered.go and broker.go
// carry frames; store.go and database.go are the site database; operator.go
// changes keys. growth.go runs large sites, and tally.go counts what they say.
package sim
