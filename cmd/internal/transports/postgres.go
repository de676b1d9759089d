package transports

import (
	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/pgbus"
)

func postgres(s appsettings.Section) (provider.Provider, error) {
	if err := only(s, "Url", "Prefix", "Table", "MaxFrameBytes"); err != nil {
		return nil, err
	}
	frame, err := number(s, "MaxFrameBytes")
	if err != nil {
		return nil, err
	}
	return pgbus.New(pgbus.Config{URL: s.Get("Url"), Prefix: s.Get("Prefix"), Table: s.Get("Table"), MaxFrameBytes: frame})
}
