package sim

import "testing"

// BenchmarkSeed_ThreeInstances is one seed, plan and verdict included.
func BenchmarkSeed_ThreeInstances(b *testing.B) {
	var plans []*Plan
	for seed := uint64(1); len(plans) < 64; seed++ {
		if p := Generate(seed); len(processNames(p)) == 3 {
			plans = append(plans, p)
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		Run(plans[i%len(plans)], nil)
	}
}
