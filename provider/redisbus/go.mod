module github.com/carillon-go/carillon/provider/redisbus

go 1.26.0

require (
	github.com/carillon-go/carillon v0.0.0
	github.com/redis/rueidis v1.0.79
)

require golang.org/x/sys v0.49.0 // indirect

replace github.com/carillon-go/carillon => ../../
