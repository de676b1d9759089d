// Package carillontest runs several instances of a site in one process, without
// sockets and without a database, for the tests of applications: what does this cache do
// when the page is changed on another instance, when an event is lost,
// when the other instance is killed?
//
//	func TestPages_AreFreshOnEveryInstance(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) { // optional: waiting costs no time
//			caches := make([]*PageCache, 2)
//			c := carillontest.NewCluster(t, 2, carillontest.Wire(func(i int, b *carillon.Broker) {
//				caches[i] = NewPageCache(b) // subscribes, then loads
//			}))
//			seen := carillontest.Record(t, c.Broker(0), pageChanged)
//
//			err := pageChanged.Raise(t.Context(), c.Broker(1), carillon.ID{}, PageChanged{Slug: "welcome"})
//			...
//			seen.WaitRaised(1)
//			synctest.Wait() // the cache's function runs beside the recorder's
//			// caches[0] no longer has the page
//
//			c.Lose(0) // from now on, nothing arrives at instance 0, and nothing is repaired
//			...
//		})
//	}
//
// Everything but the transport and the database is the real thing: numbers,
// tags, gaps, misses, queues. A [Cluster] works inside a testing/synctest
// bubble and outside; inside, all of it must be in the same bubble.
package carillontest
