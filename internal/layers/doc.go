// Package layers holds no code: its tests draw the architecture as a table of
// which package may import which, and keep a few house rules that no compiler
// checks.
package layers
