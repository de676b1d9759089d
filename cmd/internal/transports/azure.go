package transports

import (
	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/azurebus"
)

func azure(s appsettings.Section) (provider.Provider, error) {
	if err := only(s, "ConnectionString", "Prefix", "Subscription", "MaxFrameBytes"); err != nil {
		return nil, err
	}
	frame, err := number(s, "MaxFrameBytes")
	if err != nil {
		return nil, err
	}
	return azurebus.New(azurebus.Config{
		ConnectionString: s.Get("ConnectionString"), Prefix: s.Get("Prefix"), Subscription: s.Get("Subscription"), MaxFrameBytes: frame,
	})
}
