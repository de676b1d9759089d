package transports

import (
	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/rabbitbus"
)

func rabbit(s appsettings.Section) (provider.Provider, error) {
	if err := only(s, "Urls", "Prefix", "MaxFrameBytes", "QueueBytes", "Persistent"); err != nil {
		return nil, err
	}
	frame, err := number(s, "MaxFrameBytes")
	if err != nil {
		return nil, err
	}
	queue, err := number(s, "QueueBytes")
	if err != nil {
		return nil, err
	}
	persistent, err := boolean(s, "Persistent")
	if err != nil {
		return nil, err
	}
	return rabbitbus.New(rabbitbus.Config{
		URLs: s.List("Urls"), Prefix: s.Get("Prefix"), MaxFrameBytes: frame, QueueBytes: queue, Persistent: persistent,
	})
}
