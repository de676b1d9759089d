package natsbus

import "testing"

// What tests from outside use of those inside.

// Eventually is eventually.
var Eventually = eventually

// URL is where s is.
func (s *testServer) URL() string { return s.url() }

// Restart kills s and starts it again.
func (s *testServer) Restart() { s.restart() }

// StartTestServer starts a server without authorization.
func StartTestServer(tb testing.TB) *testServer { return startServer(tb, "") }
