// Package drivers tests package sqlsite against real databases. It is a module
// of its own so that the core names no driver: SQLite is linked in, PostgreSQL and MariaDB are
// started from the installed programs, in a temporary folder and on a port of their own.
package drivers
