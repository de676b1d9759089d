package sim

import (
	"slices"

	"github.com/carillon-go/carillon/internal/engine"
	"github.com/carillon-go/carillon/internal/history"
	"github.com/carillon-go/carillon/site"
)

// clone makes another process with the memory that in had at the beginning, as
// a virtual machine does that is started twice from one image. Both speak in
// one stream until they notice.
func (in *instance) clone() {
	if in.machine == nil || in.closing || in.self != in.cfg.Stream {
		return // it has another stream by now
	}
	p := in.process
	twin := &process{w: in.w, name: p.name + "-twin", site: p.site, database: p.database, networks: p.networks}
	if slices.ContainsFunc(in.w.processes, func(q *process) bool { return q.name == twin.name }) {
		return
	}
	in.w.processes = append(in.w.processes, twin)
	in.w.fault("%s is cloned", p.name)
	in.record(history.Record{Kind: history.Cloned, Stream: history.Stream(in.self)})
	c := twin.make(twin.name)
	twin.run = c
	c.record(history.Record{Kind: history.Opening, Site: p.site, Accepts: []string{"*"}})
	c.own, c.self, c.keys = slices.Clone(in.own[:1+slices.Index(in.own, in.self)]), in.self, in.keys
	c.opener.SetKeys(c.keys.accepted)
	c.sealers = slices.Clone(in.sealers)
	c.cfg = in.cfg
	c.cfg.Key, c.cfg.TrailerBytes = c.sealers[0].key, c.sealers[0].Trailer()
	c.machine = engine.New(c.cfg)
	c.revision, c.readAt = in.joinedRevision, in.w.now
	c.rows = map[site.StreamID]site.Member{}
	c.updateRows(in.joinedRows)
	for _, n := range p.networks {
		n.base().join(c)
	}
	c.machine.Start(in.w.clock(), in.joinedRows, &c.fx)
	c.startFollowing()
	c.effects()
}
