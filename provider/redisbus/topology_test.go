package redisbus

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/providertest"
	"github.com/carillon-go/carillon/site"
)

// pair starts two instances that know each other.
func pair(t *testing.T, a, b Config) (*providertest.Endpoint, *providertest.Endpoint) {
	t.Helper()
	one, two := providertest.Start(t, newTest(t, a)), providertest.Start(t, newTest(t, b))
	providertest.Introduce(one, two)
	return one, two
}

// hears checks that what from sends reaches to. While again says so it is sent anew.
func hears(t *testing.T, from, to *providertest.Endpoint, frame string, again bool) {
	t.Helper()
	err := from.Provider.Send(t.Context(), [][]byte{[]byte(frame)})
	wait := patience
	if again {
		wait = 20 * time.Millisecond
	} else if err != nil {
		t.Fatalf("send %q: %v", frame, err)
	}
	if !eventually(func() bool {
		if to.Heard([]byte(frame), wait) {
			return true
		}
		if again {
			err = from.Provider.Send(t.Context(), [][]byte{[]byte(frame)})
		}
		return false
	}) {
		t.Fatalf("%q is not heard; last error of Send: %v", frame, err)
	}
}

// Nodes of a Cluster pass on what is published at any of them, so two instances at two nodes hear each other; and the one
// whose node goes away moves on to the next.
func TestCluster_AnyNodeDoes(t *testing.T) {
	nodes := []*server{startNode(t), startNode(t)}
	nodes[0].do("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
	nodes[1].do("CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
	host, port, _ := net.SplitHostPort(nodes[1].address)
	nodes[0].do("CLUSTER", "MEET", host, port, nodes[1].busPort())
	for _, n := range nodes {
		if !eventually(func() bool { return strings.Contains(n.do("CLUSTER", "INFO"), "cluster_state:ok") }) {
			t.Fatal("the nodes have not met: " + n.do("CLUSTER", "INFO"))
		}
	}
	urlFrom := func(first, second int) string { return nodes[first].url() + "?addr=" + nodes[second].address }
	a, b := pair(t, Config{URL: urlFrom(0, 1)}, Config{URL: urlFrom(1, 0)})
	hears(t, a, b, "from one node to the other", false)
	hears(t, b, a, "and back", false)
	u := a.Provider.(provider.Unicaster)
	if err := u.SendTo(t.Context(), b.Stream(), [][]byte{[]byte("to one")}); !errors.Is(err, provider.ErrUnreachable) {
		t.Errorf("SendTo an instance at another node: %v; want ErrUnreachable, as nobody can know", err)
	}

	// A client of the application's that knows the Cluster publishes at any node.
	cluster, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{nodes[1].address}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	p := newTest(t, Config{Client: cluster})
	if p.Capabilities().Ordered {
		t.Error("through a client that knows a Cluster, Ordered is claimed")
	}
	c := providertest.Start(t, p)
	hears(t, c, b, "through the application's client", true)
	c.Close()

	nodes[0].kill()
	hears(t, a, b, "after the node is gone", true)
	hears(t, b, a, "and back after it", true)
	if a.Reconnects() == 0 {
		t.Error("Reconnected was not called")
	}
}

// startNode starts a node of a Cluster.
func startNode(t *testing.T) *server {
	_, port, _ := net.SplitHostPort(providertest.NewAddress(t))
	return startServer(t, "--cluster-enabled", "yes", "--cluster-port", port, "--cluster-require-full-coverage", "no")
}

// busPort returns the port at which nodes talk to each other.
func (s *server) busPort() string {
	for i, a := range s.args {
		if a == "--cluster-port" {
			return s.args[i+1]
		}
	}
	return ""
}

// Start and every connection after it try all addresses of the URL, until one serves.
func TestURL_AddressesAreTriedUntilOneServes(t *testing.T) {
	s := startServer(t)
	host, port, _ := net.SplitHostPort(s.address)
	replica := startServer(t, "--replicaof", host, port)
	url := "redis://127.0.0.1:1?addr=" + replica.address + "&addr=" + s.address
	a, b := pair(t, Config{URL: url}, Config{URL: s.url()})
	hears(t, a, b, "at first", false)
	s.restart()
	hears(t, a, b, "after a restart", true)

	err := newTest(t, Config{URL: "redis://127.0.0.1:1?addr=" + replica.address}).Start(t.Context(), envOf(t))
	if err == nil || !strings.Contains(err.Error(), "read-only replica") {
		t.Errorf("start where no address serves: %v", err)
	}
}

// Sentinels are asked where the primary is, each time a connection is made.
func TestSentinel_FollowsThePrimary(t *testing.T) {
	primary := startServer(t)
	host, port, _ := net.SplitHostPort(primary.address)
	replica := startServer(t, "--replicaof", host, port)
	if !eventually(func() bool { return strings.Contains(replica.do("INFO", "replication"), "master_link_status:up") }) {
		t.Fatal("the replica has no link to its primary")
	}
	sentinel := startSentinel(t, host, port)
	url := "redis://" + sentinel.address + "?master_set=primary"
	a, b := pair(t, Config{URL: url}, Config{URL: url})
	hears(t, a, b, "before the failover", false)

	if err := newTest(t, Config{URL: sentinel.url()}).Start(t.Context(), a.Env()); err == nil || !strings.Contains(err.Error(), "master_set") {
		t.Errorf("start at a Sentinel without master_set: %v", err)
	}

	if !eventually(func() bool {
		return strings.Contains(sentinel.do("SENTINEL", "REPLICAS", "primary"), replica.portOnly())
	}) {
		t.Fatal("the Sentinel does not know the replica")
	}
	primary.kill()
	if !eventually(func() bool {
		info, err := replica.try("INFO", "replication") // whom a promotion cuts off tries again
		return err == nil && strings.Contains(info, "role:master")
	}) {
		t.Fatal("the replica was not promoted")
	}
	if !eventually(func() bool { return a.Reconnects() > 0 && b.Reconnects() > 0 }) {
		t.Error("Reconnected was not called")
	}
	hears(t, a, b, "after the failover", true)
	hears(t, b, a, "and back", true)
	if !strings.Contains(replica.do("PUBSUB", "CHANNELS"), "carillon:") {
		t.Error("nobody is subscribed at the new primary")
	}
}

func (s *server) portOnly() string {
	_, port, _ := net.SplitHostPort(s.address)
	return port
}

// startSentinel starts a Sentinel that watches a primary.
func startSentinel(t *testing.T, host, port string) *server {
	conf := filepath.Join(t.TempDir(), "sentinel.conf") // it writes into it
	text := "sentinel monitor primary " + host + " " + port + " 1\nsentinel down-after-milliseconds primary 1000\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return startWith(t, conf, "--sentinel")
}

// The URL's scheme chooses TLS; a certificate that nobody vouches for is refused.
func TestTLS_IsUsedAndChecked(t *testing.T) {
	cert, key := selfSigned(t)
	s := startServer(t)
	address := providertest.NewAddress(t)
	_, port, _ := net.SplitHostPort(address)
	s.kill()
	s.args = append(s.args, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")
	s.start()
	url := "rediss://" + address
	err := newTest(t, Config{URL: url}).Start(t.Context(), envOf(t))
	if err == nil || !strings.Contains(err.Error(), "certificate is not accepted") {
		t.Errorf("start at a server with a certificate of its own making: %v", err)
	}
	a, b := pair(t, Config{URL: url + "?skip_verify=true"}, Config{URL: s.url()})
	hears(t, a, b, "over TLS", false)
	hears(t, b, a, "and back", false)
}

func selfSigned(t *testing.T) (certFile, keyFile string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret)
}

// The application's client carries frames, and is left alone when the Provider is closed.
func TestClient_RemainsTheApplications(t *testing.T) {
	s := startServer(t)
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.address}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	a, b := pair(t, Config{Client: client}, Config{URL: s.url()})
	hears(t, a, b, "through the application's client", false)
	hears(t, b, a, "and back", false)
	s.restart()
	hears(t, a, b, "after a restart", true)
	hears(t, b, a, "and back after it", true)
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := client.Do(context.Background(), client.B().Ping().Build()).Error(); err != nil {
		t.Errorf("the client after Close of the Provider: %v", err)
	}
}

// Sites that share a database hear each other, also one that was registered later; and prefixes keep apart.
func TestSites_AreKeptApartByChannelsAlone(t *testing.T) {
	s := startServer(t)
	here, there := site.ID{1}, site.ID{2}
	start := func(cfg Config, env provider.Env) *providertest.Endpoint {
		e := providertest.NewEndpoint(t, newTest(t, cfg), env)
		if err := e.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		return e
	}
	cfg := Config{URL: s.url()}
	a := start(cfg, provider.Env{Site: here})
	b := start(cfg, provider.Env{Site: there})
	both := start(cfg, provider.Env{Site: here, Sites: []site.ID{here, there}})
	apart := start(Config{URL: s.url(), Prefix: "other"}, provider.Env{Site: here})

	hears(t, b, both, "of an accepted site", false)
	hears(t, a, both, "of the own site", false)
	if a.Heard([]byte("of an accepted site"), 0) {
		t.Error("what a foreign site sends is heard")
	}
	if apart.Heard([]byte("of the own site"), 0) {
		t.Error("what is sent under another prefix is heard")
	}
	providertest.Introduce(a, b, both)
	hears(t, b, a, "of a site that turned up", true)
	u := a.Provider.(provider.Unicaster)
	if !eventually(func() bool { return u.SendTo(t.Context(), b.Stream(), [][]byte{[]byte("to one")}) == nil }) {
		t.Error("an instance of another site is not reached")
	}
	if !b.Heard([]byte("to one"), patience) {
		t.Error("what is sent to an instance of another site alone is not heard")
	}
}
