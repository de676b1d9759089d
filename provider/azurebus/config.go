package azurebus

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base32"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"

	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/site"
)

const (
	defaultPrefix     = "carillon"
	maxPrefix         = 1024
	defaultFrameBytes = 32 << 10
	minFrameBytes     = 512
	maxFrameBytes     = 192 << 10 // of one that is sent: with everything around it below the 256 KiB of the Standard tier

	defaultDeleteWhenIdle = 10 * time.Minute
	minDeleteWhenIdle     = 5 * time.Minute // of the service
	maxDeleteWhenIdle     = 24 * time.Hour
	defaultTimeToLive     = 5 * time.Minute
	minTimeToLive         = 10 * time.Second
	maxTimeToLive         = 24 * time.Hour

	maxTopicName        = 260 // characters, by the service
	maxSubscriptionName = 50
)

// Config says which namespace carries the frames, and as whom. ConnectionString, or Namespace and Credential, are required. However it is printed
// or logged, a Config shows no key.
type Config struct {
	// ConnectionString is what the portal shows for a shared access policy of the namespace: Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=….
	// With UseDevelopmentEmulator=true in it nothing is encrypted.
	ConnectionString string

	// Namespace and Credential are used instead of a ConnectionString: the host, such as example.servicebus.windows.net,
	// and an identity, such as azidentity.NewDefaultAzureCredential returns. It needs the role Azure Service Bus Data Owner; with
	// Subscription set, those of Data Sender and Data Receiver.
	Namespace  string
	Credential azcore.TokenCredential

	// Prefix begins the names of the topic and of the subscription. All instances of a site must have the same. Letters, digits and
	// any of . _ - between them, at most 1024. Empty means "carillon".
	Prefix string

	// Subscription is the name of one that exists already, for an instance that may send and listen, and not manage. It
	// belongs to this instance alone, is neither made nor removed, and its topic must exist too. Empty means that
	// the instance makes its own, under a new name each time.
	Subscription string

	// MaxFrameBytes bounds a frame that is sent. A message holds as many as fit. 512 to 192 KiB. 0 means 32 KiB.
	MaxFrameBytes int

	// DeleteWhenIdle is after how long the service removes the subscription of an instance that is gone. Shorter keeps fewer
	// messages for nobody; an instance that is away for longer makes a new one when it comes back. 5 minutes, which is the least that the service takes, to a day.
	// 0 means 10 minutes. It is not used with Subscription.
	DeleteWhenIdle time.Duration

	// TimeToLive is how long a message waits for an instance that does not fetch it. What an instance was away for longer than that, the Broker repairs,
	// as far as others have kept it. 10 seconds to a day. 0 means 5 minutes.
	TimeToLive time.Duration

	// TLS, if set, replaces the settings of encrypted connections, which by default trust the system's authorities. It is cloned.
	TLS *tls.Config

	// NewWebSocketConn, if set, makes the connection, for networks that let only HTTPS out: see the field of that name in
	// azservicebus.ClientOptions.
	NewWebSocketConn func(ctx context.Context, args azservicebus.NewWebSocketConnArgs) (net.Conn, error)

	// HTTP, if set, carries the requests that create and remove topics and subscriptions, for example through a proxy. An *http.Client is one.
	HTTP policy.Transporter
}

// settings are what is kept of a Config: nothing secret, for which there are two functions.
type settings struct {
	prefix         string
	subscription   string
	owned          bool // the subscription is made and removed by this instance
	maxFrameBytes  int
	deleteWhenIdle time.Duration
	timeToLive     time.Duration

	// client makes one whose only connection dial makes.
	client func(dial dialer) (*azservicebus.Client, error)
	// manager makes an administration client that is to be closed.
	manager func() (c *admin.Client, closed func(), err error)
	dial    dialer
}

// Format implements [fmt.Formatter] for every verb.
func (c Config) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// String returns the namespace, and no key.
func (c Config) String() string {
	if c.ConnectionString == "" {
		return fmt.Sprintf("azure: %q as an identity", c.Namespace)
	}
	cs, err := parse(c.ConnectionString)
	if err != nil {
		return "azure: a connection string that cannot be read"
	}
	return "azure: " + strconv.Quote(cs.host)
}

// LogValue implements [slog.LogValuer].
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText keeps encoders from writing keys.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// check returns what c means. An error names the field and what it may be; it shows nothing of a connection string.
func (c Config) check() (s settings, err error) {
	plain := false
	switch hasIdentity := c.Namespace != "" || c.Credential != nil; {
	case c.ConnectionString == "" && !hasIdentity:
		return s, provider.WrongSetting("azure", "ConnectionString", "is missing: want one of a shared access policy of the namespace, or instead Namespace, with an identity (in code, Credential)")
	case c.ConnectionString != "" && hasIdentity:
		return s, provider.WrongSetting("azure", "ConnectionString", "and Namespace, or in code Credential, are both set: want one or the others")
	case c.ConnectionString == "" && (c.Namespace == "" || c.Credential == nil):
		return s, provider.WrongSetting("azure", "Namespace", "and an identity belong together; in code, set Namespace and Credential, or else ConnectionString")
	case c.ConnectionString == "" && strings.ContainsAny(c.Namespace, "/@ "):
		return s, provider.WrongSetting("azure", "Namespace", "%q: want a host, such as example.servicebus.windows.net", c.Namespace)
	case c.ConnectionString != "":
		cs, err := parse(c.ConnectionString)
		if err != nil {
			return s, err
		}
		plain = cs.emulator
	}
	s = settings{
		prefix: c.Prefix, subscription: c.Subscription, maxFrameBytes: c.MaxFrameBytes, deleteWhenIdle: c.DeleteWhenIdle, timeToLive: c.TimeToLive,
		dial: c.dialer(plain),
	}
	if s.prefix == "" {
		s.prefix = defaultPrefix
	}
	if !isName(s.prefix, maxPrefix) {
		return s, provider.WrongSetting("azure", "Prefix", "%q: want at most %d letters and digits, and . _ - between them", s.prefix, maxPrefix)
	}
	if s.subscription == "" {
		s.owned, s.subscription = true, newSubscriptionName(s.prefix)
	}
	if !isName(s.subscription, maxSubscriptionName) {
		return s, provider.WrongSetting("azure", "Subscription", "%q: want at most %d letters and digits, and . _ - between them", s.subscription, maxSubscriptionName)
	}
	if s.maxFrameBytes == 0 {
		s.maxFrameBytes = defaultFrameBytes
	}
	if s.maxFrameBytes < minFrameBytes || s.maxFrameBytes > maxFrameBytes {
		return s, provider.WrongSetting("azure", "MaxFrameBytes", "%d: want %d to %d, or 0 for %d", s.maxFrameBytes, minFrameBytes, maxFrameBytes, defaultFrameBytes)
	}
	if s.deleteWhenIdle, err = within("DeleteWhenIdle", s.deleteWhenIdle, minDeleteWhenIdle, maxDeleteWhenIdle, defaultDeleteWhenIdle); err != nil {
		return s, err
	}
	if s.timeToLive, err = within("TimeToLive", s.timeToLive, minTimeToLive, maxTimeToLive, defaultTimeToLive); err != nil {
		return s, err
	}
	s.client, s.manager = c.makers()
	return s, nil
}

func within(field string, d, least, most, otherwise time.Duration) (time.Duration, error) {
	if d == 0 {
		return otherwise, nil
	}
	if d < least || d > most {
		return 0, provider.WrongSetting("azure", field, "%v: want %v to %v, or 0 for %v", d, least, most, otherwise)
	}
	return d, nil
}

// makers returns the functions that hold what is secret.
func (c Config) makers() (func(dialer) (*azservicebus.Client, error), func() (*admin.Client, func(), error)) {
	client := func(dial dialer) (*azservicebus.Client, error) {
		o := &azservicebus.ClientOptions{
			NewWebSocketConn: dial,
			RetryOptions:     azservicebus.RetryOptions{MaxRetries: -1}, // what failed, the Broker sends again
		}
		if c.ConnectionString != "" {
			return azservicebus.NewClientFromConnectionString(c.ConnectionString, o)
		}
		return azservicebus.NewClient(c.Namespace, c.Credential, o)
	}
	manager := func() (*admin.Client, func(), error) {
		transport, closed := c.HTTP, func() {}
		if transport == nil {
			t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: c.TLS.Clone(), ForceAttemptHTTP2: true}
			transport, closed = &http.Client{Transport: t}, t.CloseIdleConnections
		}
		o := &admin.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: transport, Retry: policy.RetryOptions{MaxRetries: -1}}}
		if c.ConnectionString != "" {
			a, err := admin.NewClientFromConnectionString(c.ConnectionString, o)
			return a, closed, err
		}
		a, err := admin.NewClient(c.Namespace, c.Credential, o)
		return a, closed, err
	}
	return client, manager
}

// A connectionString is what a connection string says that is no secret.
type connectionString struct {
	host     string // with its port, if there is one
	emulator bool
}

// parse reads a connection string. Its errors show nothing of it, as a key may stand anywhere.
func parse(s string) (cs connectionString, err error) {
	wrong := func(what string) (connectionString, error) {
		return connectionString{}, provider.WrongSetting("azure", "ConnectionString", "(not shown, as it holds a key): %s; want Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=… as the portal shows it for a shared access policy", what)
	}
	has := make(map[string]bool)
	for part := range strings.SplitSeq(s, ";") {
		key, value, ok := strings.Cut(part, "=")
		if strings.TrimSpace(part) == "" {
			continue
		}
		if !ok || value == "" {
			return wrong("a part has no value")
		}
		key = strings.ToLower(key)
		has[key] = true
		switch key {
		case "endpoint":
			u, err := url.Parse(value)
			if err != nil || u.Scheme != "sb" || u.Hostname() == "" || u.User != nil {
				return wrong("Endpoint is no address")
			}
			cs.host = u.Host
		case "usedevelopmentemulator":
			if cs.emulator, err = strconv.ParseBool(value); err != nil {
				return wrong("UseDevelopmentEmulator is neither true nor false")
			}
		}
	}
	switch {
	case cs.host == "":
		return wrong("Endpoint is missing")
	case !has["sharedaccesssignature"] && !(has["sharedaccesskeyname"] && has["sharedaccesskey"]):
		return wrong("SharedAccessKeyName or SharedAccessKey is missing")
	}
	return cs, nil
}

// isName reports whether s may be part of the name of a topic or of a subscription.
func isName(s string, most int) bool {
	letter := func(r byte) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' }
	if s == "" || len(s) > most || !letter(s[0]) || !letter(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if !letter(s[i]) && !strings.ContainsRune("._-", rune(s[i])) {
			return false
		}
	}
	return true
}

var inName = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newSubscriptionName returns a name that nobody else has.
func newSubscriptionName(prefix string) string {
	var b [16]byte
	rand.Read(b[:])
	return fit(prefix+"-"+inName.EncodeToString(b[:]), maxSubscriptionName)
}

// topicOf returns the name of a site's topic.
func topicOf(prefix string, s site.ID) string { return fit(prefix+"-"+s.String(), maxTopicName) }

// fit returns name, or a hash of it if it is too long. Names that were cut could be those of others.
func fit(name string, most int) string {
	if len(name) <= most {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return inName.EncodeToString(sum[:25]) // 40 characters
}
