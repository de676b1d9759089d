package cms

import "github.com/carillon-go/carillon"

// The three events of the site. Each says which thing changed and leaves it to
// the hearer to read how it is now. Change is the number that the change has in
// the database; here it serves to recognise one change in all reports, and
// caches do not need it.
type (
	// PageChanged says that a page has new content or a new address.
	PageChanged struct {
		Change   int64  `json:"change"`
		Page     int64  `json:"page"`
		Slug     string `json:"slug"`          // address now
		Was      string `json:"was,omitempty"` // address before, if it is another
		Revision int64  `json:"revision"`
	}

	// LinkChanged says that a permanent link leads to another address.
	LinkChanged struct {
		Change int64  `json:"change"`
		Page   int64  `json:"page"`
		Slug   string `json:"slug"`
	}

	// WorkflowChanged says that the work in progress on a page has changed.
	WorkflowChanged struct {
		Change int64  `json:"change"`
		Page   int64  `json:"page"`
		Slug   string `json:"slug"`
		State  string `json:"state"`
	}
)

// Names of the events, for people.
const (
	pageChangedName     = "page changed"
	linkChangedName     = "link changed"
	workflowChangedName = "workflow changed"
)

// events are the definitions, which every instance makes for itself.
type events struct {
	page     *carillon.Definition[PageChanged]
	link     *carillon.Definition[LinkChanged]
	workflow *carillon.Definition[WorkflowChanged]
}

func defineEvents() events {
	return events{
		page:     carillon.Define[PageChanged](carillon.MustParseID("5b0f6a0e-0b1c-4f43-9a5f-6c2f1d1f8a01"), pageChangedName),
		link:     carillon.Define[LinkChanged](carillon.MustParseID("5b0f6a0e-0b1c-4f43-9a5f-6c2f1d1f8a02"), linkChangedName),
		workflow: carillon.Define[WorkflowChanged](carillon.MustParseID("5b0f6a0e-0b1c-4f43-9a5f-6c2f1d1f8a03"), workflowChangedName),
	}
}

// RaiserID tells a subscriber that an event comes from this application.
var raiserID = carillon.MustParseID("5b0f6a0e-0b1c-4f43-9a5f-6c2f1d1f8a00")
