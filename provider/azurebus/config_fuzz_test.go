package azurebus

import (
	"strings"
	"testing"
)

// Whatever is given as a connection string, an error about it repeats nothing of it, and neither does what prints it.
func FuzzConnectionString(f *testing.F) {
	f.Add("Endpoint=sb://example.servicebus.windows.net/;SharedAccessKeyName=app;SharedAccessKey=", "b3Blbi1zZXNhbWU=")
	f.Add("Endpoint=sb://app:", "b3Blbi1zZXNhbWU=@x;UseDevelopmentEmulator=1")
	f.Add("UseDevelopmentEmulator=", "b3Blbi1zZXNhbWU=")
	f.Fuzz(func(t *testing.T, before, key string) {
		if len(key) < 12 || strings.Contains(before+"sb://azure: a connection string that cannot be read", key) {
			return
		}
		cfg := Config{ConnectionString: before + key}
		_, err := New(cfg)
		if err != nil && strings.Contains(err.Error(), key) {
			t.Errorf("%v", err)
		}
		cs, err := parse(cfg.ConnectionString)
		if text := cfg.String(); strings.Contains(text, key) && (err != nil || !strings.Contains(cs.host, key)) {
			t.Errorf("%s", text)
		}
	})
}
