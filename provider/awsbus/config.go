package awsbus

import (
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/carillon-go/carillon/provider"
)

// Config says in which account and region the topics and queues are. AWS is required. A Config does not
// print AWS, which may hold credentials.
type Config struct {
	// AWS has the credentials and the region, as config.LoadDefaultConfig of the AWS SDK returns it. Loading is
	// left to the application, which often has done so already: the packages that do it are larger than SNS' and SQS' clients
	// together, and not linked by this one. Its retryer is not used.
	AWS aws.Config

	// Region, if set, is used instead of that of AWS. All instances of a site use the same one: topics of different regions know
	// nothing of each other.
	Region string

	// Endpoint is where both services are, if not at Amazon: the URL of an emulator. Endpoints that differ, such as those of a
	// VPC, are settings of the SDK: AWS_ENDPOINT_URL_SNS and AWS_ENDPOINT_URL_SQS.
	Endpoint string

	// Prefix begins the names of all topics and queues. It keeps apart what shares an account. Empty means
	// "carillon"; at most 128 letters, digits, hyphens and underscores. Queue names have no room for more than 16: a longer
	// prefix is replaced by a hash of it there.
	Prefix string

	// MaxFrameBytes bounds a frame that is sent, 512 to 196,000. Whatever it is, all frames are received. 0 means 49,000: what fits into
	// a message of 64 KiB, the unit that Amazon charges for.
	MaxFrameBytes int
}

const (
	defaultPrefix     = "carillon"
	maxPrefix         = 128
	defaultFrameBytes = 49_000
	minFrameBytes     = 512
	maxFrameBytes     = 196_000 // encoded, and with attributes, 256 KiB
)

// Format implements [fmt.Formatter] for every verb.
func (c Config) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// String returns c without what AWS holds.
func (c Config) String() string {
	return fmt.Sprintf("{AWS:[redacted] Region:%q Endpoint:%q Prefix:%q MaxFrameBytes:%d}", c.Region, bare(c.Endpoint), c.Prefix, c.MaxFrameBytes)
}

// LogValue implements [slog.LogValuer].
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText implements [encoding.TextMarshaler], as c is logged.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// bare returns an URL without user and password, which none should have.
func bare(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.User != nil {
		return "[redacted]"
	}
	return s
}

// withDefaults returns a copy of c with every zero field replaced. An error names the field and what it may be.
func (c Config) withDefaults() (Config, error) {
	if c.Region == "" {
		c.Region = c.AWS.Region
	}
	c.AWS.Region = c.Region
	if c.Region == "" {
		return c, provider.WrongSetting("aws", "Region", "is missing: set it, or the variable AWS_REGION, or region in the profile of this user")
	}
	if c.AWS.Credentials == nil {
		return c, provider.WrongSetting("aws", "AWS", "has no credentials; in code, load it with config.LoadDefaultConfig of the AWS SDK, or set AWS.Credentials")
	}
	if c.Endpoint != "" {
		u, err := url.Parse(c.Endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			return c, provider.WrongSetting("aws", "Endpoint", "is not understood; want https://host[:port] or http://host[:port], without user and password")
		}
	}
	if c.Prefix == "" {
		c.Prefix = defaultPrefix
	}
	if len(c.Prefix) > maxPrefix || strings.ContainsFunc(c.Prefix, strange) {
		return c, provider.WrongSetting("aws", "Prefix", "%q: want at most %d letters, digits, hyphens and underscores", c.Prefix, maxPrefix)
	}
	if c.MaxFrameBytes == 0 {
		c.MaxFrameBytes = defaultFrameBytes
	}
	if c.MaxFrameBytes < minFrameBytes || c.MaxFrameBytes > maxFrameBytes {
		return c, provider.WrongSetting("aws", "MaxFrameBytes", "%d: want %d to %d, or 0 for %d", c.MaxFrameBytes, minFrameBytes, maxFrameBytes, defaultFrameBytes)
	}
	return c, nil
}

// strange reports whether r has no place in a name of SNS or SQS.
func strange(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
}
