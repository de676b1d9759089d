module github.com/carillon-go/carillon/provider/rabbitbus

go 1.26.0

require (
	github.com/carillon-go/carillon v0.0.0
	github.com/rabbitmq/amqp091-go v1.16.0
)

replace github.com/carillon-go/carillon => ../../
