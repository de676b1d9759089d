module github.com/carillon-go/carillon/provider/mqttbus

go 1.26.0

require (
	github.com/carillon-go/carillon v0.0.0
	github.com/eclipse/paho.golang v0.23.0
)

replace github.com/carillon-go/carillon => ../../
