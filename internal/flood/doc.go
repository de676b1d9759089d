// Package flood holds no code: its tests let a process of its own send as many forged
// frames as it can to real instances over real sockets, and watch what that does to
// them. make flood runs them for longer.
package flood
