package kafkabus

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/carillon-go/carillon/provider"
)

const (
	defaultPrefix     = "carillon"
	maxPrefixBytes    = 200 // of the 249 that a topic's name may have, 37 are for the site
	defaultRetention  = 10 * time.Minute
	minRetention      = time.Minute
	defaultFrameBytes = 32 << 10
	minFrameBytes     = 512
	maxFrameBytes     = 960 << 10 // with what goes around it less than brokers take unless they are told otherwise
	maxBrokers        = 64
	maxPartitions     = 1000

	// batchBytes is how much of a batch of frames becomes one batch of records.
	batchBytes = 256 << 10

	dialTimeout    = 3 * time.Second
	answerWithin   = 5 * time.Second // for one request
	attemptTimeout = 15 * time.Second
	firstRetry     = 50 * time.Millisecond
	lastRetry      = time.Second
)

// The mechanisms of [Config.Mechanism].
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
)

// Config says where the brokers are. The zero Config is a broker on this machine, without credentials. However it is printed or logged, a Config
// shows no password.
type Config struct {
	// Brokers lists some of the cluster's brokers, as host:port; the others are learned from them, under the names that they
	// advertise. Without a port it is 9092. Empty means 127.0.0.1:9092.
	Brokers []string

	// User and Password are credentials for SASL. Without them, brokers are told nothing, or what the certificate in TLS says.
	User, Password string

	// Mechanism is how they are told: Plain, ScramSHA256 or ScramSHA512. Plain shows the password to whoever can read the
	// connection, so it wants TLS. Empty means ScramSHA512.
	Mechanism string

	// TLS, if set, makes every connection a TLS one, with certificates and authorities as it says; &tls.Config{} is enough where the system trusts the
	// brokers' certificates. It is cloned.
	TLS *tls.Config

	// Prefix begins the name of every topic: letters, digits, ".", "_" and "-", at most 200. All instances of a site must have the same. Empty means
	// "carillon".
	Prefix string

	// Partitions, Replicas and Retention are for a topic that this instance makes; one that is there stays as it is. 0 partitions or replicas means what the
	// brokers do by default (num.partitions, default.replication.factor). Retention is how long a frame is kept at least, and so how long an
	// outage may be without loss; 1 minute or more, and 0 means 10 minutes.
	Partitions, Replicas int
	Retention            time.Duration

	// MaxFrameBytes bounds a frame that is sent. More than the default gains little. 512 to 983,040 (960 KiB). 0 means 32 KiB.
	MaxFrameBytes int

	// Options are given to franz-go, for what Config has no field for: other mechanisms of SASL, a dialer. Where they contradict what
	// this package needs, they are ignored. No consumer group, and no transaction.
	Options []kgo.Opt
}

// settings are what is kept of a Config: nothing secret.
type settings struct {
	brokers       string // for errors and logs
	known         []string
	user          string
	mechanism     string // empty: no credentials
	tls           bool
	prefix        string
	partitions    int32 // -1: as the brokers do
	replicas      int16 // -1: as the brokers do
	retention     time.Duration
	maxFrameBytes int

	sendWithin, lookEvery, lookWithin time.Duration // the constants, but in tests that do not want to wait
}

// Format implements [fmt.Formatter] for every verb.
func (c Config) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// String returns the brokers.
func (c Config) String() string {
	brokers, err := c.brokers()
	if err != nil {
		return "kafka: brokers that cannot be read"
	}
	return "kafka: " + strings.Join(brokers, ", ")
}

// LogValue implements [slog.LogValuer].
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText keeps encoders from writing the password.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// brokers returns the addresses, each with its port.
func (c Config) brokers() ([]string, error) {
	var all []string
	for _, list := range c.Brokers {
		for text := range strings.SplitSeq(list, ",") {
			if text = strings.TrimSpace(text); text == "" {
				continue
			}
			address, ok := withPort(text)
			if !ok {
				// The text is not repeated: whoever writes a URL may have put a password into it.
				return nil, provider.WrongSetting("kafka", "Brokers", "number %d cannot be read (it is not shown, as it may hold a password); write host:port, without a scheme, and credentials in User and Password", len(all)+1)
			}
			all = append(all, address)
		}
	}
	if len(all) == 0 {
		all = append(all, "127.0.0.1:9092")
	}
	if len(all) > maxBrokers {
		return nil, provider.WrongSetting("kafka", "Brokers", "%d of them; at most %d, as the others are learned", len(all), maxBrokers)
	}
	return all, nil
}

// withPort returns an address with its port, and false for what is no address.
func withPort(text string) (address string, ok bool) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = text, "9092"
		if inner, ok := strings.CutPrefix(text, "["); ok {
			host = strings.TrimSuffix(inner, "]")
		}
	}
	if net.ParseIP(host) == nil && (host == "" || strings.ContainsFunc(host, strange)) { // a zone could be anything, a password too
		return "", false
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", false
	}
	return net.JoinHostPort(host, port), true
}

// check returns what is kept of c, and the options of every client; or an error that names the field and what it may be.
func (c Config) check() (settings, []kgo.Opt, error) {
	s := settings{user: c.User, prefix: c.Prefix, partitions: -1, replicas: -1, retention: c.Retention, maxFrameBytes: c.MaxFrameBytes,
		sendWithin: sendWithin, lookEvery: lookEvery, lookWithin: lookWithin}
	var err error
	if s.known, err = c.brokers(); err != nil {
		return s, nil, err
	}
	s.brokers = strings.Join(s.known, ", ")
	if s.prefix == "" {
		s.prefix = defaultPrefix
	}
	if len(s.prefix) > maxPrefixBytes || strings.ContainsFunc(s.prefix, strange) {
		return s, nil, provider.WrongSetting("kafka", "Prefix", "%q: want at most %d letters, digits and . _ -", s.prefix, maxPrefixBytes)
	}
	if c.Partitions < 0 || c.Partitions > maxPartitions {
		return s, nil, provider.WrongSetting("kafka", "Partitions", "%d: want 1 to %d, or 0 for what the brokers do by default", c.Partitions, maxPartitions)
	}
	if c.Replicas < 0 || c.Replicas > maxBrokers {
		return s, nil, provider.WrongSetting("kafka", "Replicas", "%d: want 1 to the number of brokers, or 0 for what they do by default", c.Replicas)
	}
	if c.Partitions > 0 {
		s.partitions = int32(c.Partitions)
	}
	if c.Replicas > 0 {
		s.replicas = int16(c.Replicas)
	}
	if s.retention == 0 {
		s.retention = defaultRetention
	}
	if s.retention < minRetention {
		return s, nil, provider.WrongSetting("kafka", "Retention", "%v: want at least %v, or 0 for %v", c.Retention, minRetention, defaultRetention)
	}
	if s.maxFrameBytes == 0 {
		s.maxFrameBytes = defaultFrameBytes
	}
	if s.maxFrameBytes < minFrameBytes || s.maxFrameBytes > maxFrameBytes {
		return s, nil, provider.WrongSetting("kafka", "MaxFrameBytes", "%d: want %d to %d, or 0 for %d", c.MaxFrameBytes, minFrameBytes, maxFrameBytes, defaultFrameBytes)
	}
	options, err := c.clientOptions(&s)
	if err != nil {
		return s, nil, err
	}
	if err := kgo.ValidateOpts(options...); err != nil {
		return s, nil, provider.WrongSetting("kafka", "Options", "are not accepted: %w", err)
	}
	return s, options, nil
}

// strange reports whether r has no place in the name of a topic, nor in that of a host.
func strange(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
}

// clientOptions returns what every client is made with, but for what belongs to one Provider.
func (c Config) clientOptions(s *settings) ([]kgo.Opt, error) {
	options := append(c.Options[:len(c.Options):len(c.Options)],
		kgo.SeedBrokers(s.known...),
		kgo.ClientID("carillon"),
		kgo.DialTimeout(dialTimeout),
		kgo.RequestTimeoutOverhead(answerWithin),
		kgo.RetryTimeoutFn(retryFor),
		kgo.RetryBackoffFn(retryAfter),
		kgo.MetadataMinAge(250*time.Millisecond), // a partition has a new leader when the old one is gone, and is looked for then
		kgo.DisableClientMetrics(),

		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), // frames are packed, and may be encrypted
		kgo.ProducerLinger(0),
		kgo.ManualFlushing(), // a batch of frames goes out as a whole, not its first frame alone
		kgo.ProduceRequestTimeout(answerWithin),
		kgo.RecordDeliveryTimeout(answerWithin),
		// What was given up may have been taken all the same. The Broker sends it again, and drops what comes twice.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.MaxBufferedRecords(bufferedFrames),
		kgo.MaxBufferedBytes(bufferedBytes),
		kgo.ProducerBatchMaxBytes(int32(max(batchBytes, s.maxFrameBytes+recordOverhead))),

		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // where to go on is decided here, and told
		kgo.FetchMaxWait(time.Second),               // a partition that is added has to wait for it
		kgo.FetchMaxBytes(4<<20),
		kgo.FetchMaxPartitionBytes(1<<20),
		kgo.WithDecompressor(uncompressed{}),
		kgo.DisableFetchSessions(), // they gain nothing with so few partitions, and cost a round trip at the end
	)
	if s.tls = c.TLS != nil; s.tls {
		options = append(options, kgo.DialTLSConfig(c.TLS.Clone()))
	}
	if c.User == "" && c.Password == "" {
		if c.Mechanism != "" {
			return nil, provider.WrongSetting("kafka", "Mechanism", "is set, and User is not: set both, or neither")
		}
		return options, nil
	}
	if c.User == "" || c.Password == "" {
		return nil, provider.WrongSetting("kafka", "User", "and Password belong together: set both, or neither")
	}
	s.mechanism = c.Mechanism
	switch c.Mechanism {
	case Plain:
		return append(options, kgo.SASL(plain.Auth{User: c.User, Pass: c.Password}.AsMechanism())), nil
	case ScramSHA256:
		return append(options, kgo.SASL(scram.Auth{User: c.User, Pass: c.Password}.AsSha256Mechanism())), nil
	case ScramSHA512, "":
		s.mechanism = ScramSHA512
		return append(options, kgo.SASL(scram.Auth{User: c.User, Pass: c.Password}.AsSha512Mechanism())), nil
	}
	// What is written there by mistake may be the password.
	return nil, provider.WrongSetting("kafka", "Mechanism", "is none of %q, %q and %q; others take, in code, Options", Plain, ScramSHA256, ScramSHA512)
}

// retryFor returns how long franz-go repeats a request that fails. It is short for the question by which is seen whether there is anybody.
func retryFor(key int16) time.Duration {
	if key == int16(kmsg.Metadata) {
		return time.Second
	}
	return 2 * answerWithin
}

// retryAfter returns how long franz-go waits before a request's n-th repetition: twice as long each time, and never twice the same.
func retryAfter(n int) time.Duration {
	d := lastRetry
	if n < 6 {
		d = min(firstRetry<<max(n-1, 0), lastRetry)
	}
	return d/2 + rand.N(d/2)
}
