package transports

import (
	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/redisbus"
)

func redis(s appsettings.Section) (provider.Provider, error) {
	if err := only(s, "Url", "Prefix", "Keep", "MaxFrameBytes"); err != nil {
		return nil, err
	}
	frame, err := number(s, "MaxFrameBytes")
	if err != nil {
		return nil, err
	}
	keep, err := number(s, "Keep")
	if err != nil {
		return nil, err
	}
	return redisbus.New(redisbus.Config{URL: s.Get("Url"), Prefix: s.Get("Prefix"), Keep: keep, MaxFrameBytes: frame})
}
