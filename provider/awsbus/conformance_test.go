package awsbus

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/awsbus/awsbustest"
	"github.com/carillon-go/carillon/provider/providertest"
)

// harness makes networks of instances that each reach an emulator of the network through a relay.
func harness(o awsbustest.Options) providertest.Harness {
	o.DeletedRecently = 200 * time.Millisecond // else a queue that was removed is away for a minute
	return providertest.HarnessFunc(func(tb testing.TB, n int) *providertest.Network {
		e := awsbustest.Start(tb, o)
		var relays []*providertest.Relay
		var providers []*Provider
		network := &providertest.Network{
			FloodBytes: 2 << 20, // nothing is too much for a queue, and the emulator is not fast
			Restart:    func() { e.Stop(); e.Restart() },
			Broken: func() provider.Provider {
				return newTest(tb, Config{AWS: e.Config(), Endpoint: "http://127.0.0.1:1"})
			},
			Silent: func() provider.Provider {
				mute, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					tb.Fatal(err)
				}
				tb.Cleanup(func() { mute.Close() })
				return newTest(tb, Config{AWS: e.Config(), Endpoint: "http://" + mute.Addr().String()})
			},
			IgnoreGoroutine: func(stack string) bool {
				return strings.Contains(stack, "net/http.(*conn).serve") || strings.Contains(stack, "net/http.(*connReader)") ||
					strings.Contains(stack, "awsbustest.(*Emulator)") ||
					// One that runs opens connections when it likes. None may be left when all are closed; of a Start
					// that fails see TestStart_LeavesNothingBehind.
					strings.Contains(stack, "net/http.(*Transport)") && slices.ContainsFunc(providers, (*Provider).runs)
			},
		}
		for range n {
			r := providertest.NewRelay(tb, e.Address())
			p := newTest(tb, Config{AWS: e.Config(), Endpoint: "http://" + r.Addr()})
			relays, providers = append(relays, r), append(providers, p)
			network.Providers = append(network.Providers, p)
		}
		network.Cut = func(i int) { relays[i].Cut() }
		network.Heal = func(i int) { relays[i].Heal() }
		network.Garbage = func(i int, b []byte) error {
			s := providers[i].keeper.Env().Site
			if err := publish(tb.Context(), e, s, "a stranger", toAll, string(b)); err == nil {
				return nil
			}
			// It is no text. So as something that is taken apart further.
			return publish(tb.Context(), e, s, string(newInstanceID()), toAll, encoding.EncodeToString(b))
		}
		return network
	})
}

func TestProvider_KeepsTheContract(t *testing.T) {
	providertest.Run(t, harness(awsbustest.Options{}))
}

// Messages overtake each other, every third one comes twice, and no filter has taken effect.
func TestProvider_KeepsTheContractAtItsWorst(t *testing.T) {
	providertest.Run(t, harness(awsbustest.Options{Reorder: true, Repeat: 3, LateFilters: true}))
}

func BenchmarkProvider(b *testing.B) {
	providertest.RunBenchmarks(b, harness(awsbustest.Options{}))
}
