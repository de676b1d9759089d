module github.com/carillon-go/carillon/appsettings

go 1.26.0

require (
	github.com/carillon-go/carillon v0.0.0
	github.com/tailscale/hujson v0.0.0-20260727124030-b80ff77dac4f
	golang.org/x/text v0.43.0
)

require golang.org/x/tools v0.52.0

require (
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/carillon-go/carillon => ../
