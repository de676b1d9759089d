package tcpbus

import (
	"bytes"
	"io"
	"testing"

	"github.com/carillon-go/carillon/provider/providertest"
)

func BenchmarkProvider(b *testing.B) {
	b.Run("plain", func(b *testing.B) { providertest.RunBenchmarks(b, harness(Config{}, nil, false)) })
	b.Run("TLS", func(b *testing.B) {
		providertest.RunBenchmarks(b, harness(Config{TLS: tlsConfig(b)}, nil, false))
	})
}

// What a receiver pays for cutting frames out of the stream, without the kernel.
func BenchmarkFrameReader(b *testing.B) {
	for _, bb := range []struct {
		name   string
		length int
	}{{"100B", 100}, {"1200B", 1200}, {"64KiB", 64 << 10}} {
		b.Run(bb.name, func(b *testing.B) {
			var frames [][]byte
			for n := 0; n < 4<<20; n += bb.length {
				frames = append(frames, make([]byte, bb.length))
			}
			wire := encodeFrames(frames...)
			b.SetBytes(int64(len(wire)))
			b.ReportAllocs()
			for b.Loop() {
				r := newFrameReader(bytes.NewReader(wire), maxFrameBytes)
				for {
					if _, err := r.next(); err != nil {
						if err != io.EOF {
							b.Fatal(err)
						}
						break
					}
				}
			}
		})
	}
}
