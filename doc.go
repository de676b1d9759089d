// Package carillon distributes events between the running instances of one
// application: processes that share one database. Code on one instance raises
// an event, and its subscribers run on every instance. The classic use is a
// cache: a page is published on one instance, and every other one must stop
// serving its old copy.
//
//	var pageChanged = carillon.Define[PageChanged](
//		carillon.MustParseID("5b0f6a0e-0b1c-4f43-9a5f-6c2f1d1f8a01"), "page changed")
//
//	b, err := carillon.Open(ctx, carillon.Config{
//		Application: "shop",
//		Database:    database,                     // see package sqlsite
//		Providers:   []provider.Provider{transport}, // see packages tcpbus and udpbus
//	})
//	...
//	pageChanged.OnRaised(b, func(_ context.Context, r carillon.Raised[PageChanged]) {
//		pages.Remove(r.Parameter.Slug)
//	})
//	pageChanged.OnMissed(b, func(context.Context, carillon.Missed) {
//		pages.Clear()
//	})
//	pages.Load()
//	b.Enable()
//	...
//	err = pageChanged.Raise(ctx, b, carillon.ID{}, PageChanged{Slug: "welcome"})
//
// For every subscriber, every event that its instance can know to exist ends as
// exactly one of two: it is raised, which is to say that the function was
// called, or it is missed, and OnMissed hears of it. That holds from the
// return of OnRaised or Open, whichever is later, until Shutdown or Close begins.
// Events come from instances that hold the site's secret, each at most once.
//
// Not promised are exactly-once processing, an order between different events
// or instances, delivery to instances that do not run, the last events
// of an instance that was killed, and secrecy. Events announce; state is read
// from the database.
//
// Those who write transports or site databases read packages provider and
// site; tests of applications use package carillontest.
package carillon
