package transports

import (
	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/mqttbus"
)

func mqtt(s appsettings.Section) (provider.Provider, error) {
	if err := only(s, "Urls", "Prefix", "MaxFrameBytes", "ReceiveBytes", "Durable"); err != nil {
		return nil, err
	}
	frame, err := number(s, "MaxFrameBytes")
	if err != nil {
		return nil, err
	}
	receive, err := number(s, "ReceiveBytes")
	if err != nil {
		return nil, err
	}
	durable, err := boolean(s, "Durable")
	if err != nil {
		return nil, err
	}
	return mqttbus.New(mqttbus.Config{
		URLs: s.List("Urls"), Prefix: s.Get("Prefix"), MaxFrameBytes: frame, ReceiveBytes: receive, Durable: durable,
	})
}
