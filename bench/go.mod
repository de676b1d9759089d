module github.com/carillon-go/carillon/bench

go 1.26.0

replace github.com/carillon-go/carillon => ../
