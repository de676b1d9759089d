module github.com/carillon-go/carillon

go 1.25.0
