package transports

import (
	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/natsbus"
)

func nats(s appsettings.Section) (provider.Provider, error) {
	if err := only(s, "Urls", "User", "Password", "Token", "CredentialsFile", "NkeyFile", "Prefix", "MaxFrameBytes", "ReceiveBytes"); err != nil {
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
	return natsbus.New(natsbus.Config{
		URLs: s.List("Urls"), User: s.Get("User"), Password: s.Get("Password"), Token: s.Get("Token"),
		CredentialsFile: s.Get("CredentialsFile"), NKeyFile: s.Get("NkeyFile"),
		Prefix: s.Get("Prefix"), MaxFrameBytes: frame, ReceiveBytes: receive,
	})
}
