// Package transports says what the programs here can carry events through, beside tcp and udp which
// package appsettings knows itself. One more takes a function, and its line in Factories.
package transports

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/carillon-go/carillon/appsettings"
	"github.com/carillon-go/carillon/provider"
	"github.com/carillon-go/carillon/provider/awsbus"
	"github.com/carillon-go/carillon/provider/azurebus"
	"github.com/carillon-go/carillon/provider/kafkabus"
	"github.com/carillon-go/carillon/provider/mqttbus"
	"github.com/carillon-go/carillon/provider/natsbus"
	"github.com/carillon-go/carillon/provider/pgbus"
	"github.com/carillon-go/carillon/provider/rabbitbus"
	"github.com/carillon-go/carillon/provider/redisbus"
)

// Factories returns the transports by the names that select them in a configuration. The
// section of each, such as Carillon:Nats, is described in docs/configuration.md.
func Factories() map[string]appsettings.Factory {
	all := make(map[string]appsettings.Factory)
	for name, from := range map[string]func(*reader) (provider.Provider, error){
		"aws": aws, "azure": azure, "jetstream": jetStream, "kafka": kafka, "mqtt": mqtt, "nats": nats,
		"postgres": postgres, "rabbit": rabbit, "redis": redis, "redisstreams": redisStreams,
	} {
		all[name] = func(s appsettings.Section) (provider.Provider, error) {
			p, err := from(&reader{section: s})
			if err != nil {
				return nil, fmt.Errorf("section Carillon:%s: %w", strings.ToUpper(name[:1])+name[1:], err)
			}
			return p, nil
		}
	}
	return all
}

// Names returns the names of all transports, tcp and udp included, ascending.
func Names() []string {
	names := []string{"tcp", "udp"}
	for name := range Factories() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// LeaveBehind returns the names of those whose instances leave something at the service when they are killed, ascending:
// of what they make, a [provider.Cleaner].
func LeaveBehind() []string { return []string{"aws", "azure"} }

func natsConfig(r *reader) natsbus.Config {
	return natsbus.Config{
		URLs: r.list("Urls"), User: r.text("User"), Password: r.text("Password"), Token: r.text("Token"),
		CredentialsFile: r.text("CredentialsFile"), NKeyFile: r.text("NkeyFile"),
		Prefix: r.text("Prefix"), MaxFrameBytes: r.number("MaxFrameBytes"), ReceiveBytes: r.number("ReceiveBytes"),
	}
}

func nats(r *reader) (provider.Provider, error) { return build(r, natsConfig(r), natsbus.New) }

func jetStream(r *reader) (provider.Provider, error) {
	return build(r, natsbus.JetStreamConfig{
		Config: natsConfig(r), MaxAge: r.duration("MaxAge"), MaxBytes: int64(r.number("MaxBytes")), Replicas: r.number("Replicas"), Memory: r.boolean("Memory"),
	}, natsbus.NewJetStream)
}

func redisConfig(r *reader) redisbus.Config {
	return redisbus.Config{URL: r.text("Url"), Prefix: r.text("Prefix"), MaxFrameBytes: r.number("MaxFrameBytes")}
}

func redis(r *reader) (provider.Provider, error) { return build(r, redisConfig(r), redisbus.New) }

// keep is how many frames a Redis stream keeps if nothing else is said.
const keep = 4096

func redisStreams(r *reader) (provider.Provider, error) {
	cfg := redisConfig(r)
	if cfg.Keep = r.number("Keep"); cfg.Keep == 0 {
		cfg.Keep = keep
	}
	return build(r, cfg, redisbus.New)
}

func rabbit(r *reader) (provider.Provider, error) {
	return build(r, rabbitbus.Config{
		URLs: r.list("Urls"), Prefix: r.text("Prefix"), MaxFrameBytes: r.number("MaxFrameBytes"), QueueBytes: r.number("QueueBytes"), Persistent: r.boolean("Persistent"),
	}, rabbitbus.New)
}

func kafka(r *reader) (provider.Provider, error) {
	cfg := kafkabus.Config{
		Brokers: r.list("Brokers"), User: r.text("User"), Password: r.text("Password"), Mechanism: r.text("Mechanism"), Prefix: r.text("Prefix"),
		Partitions: r.number("Partitions"), Replicas: r.number("Replicas"), Retention: r.duration("Retention"), MaxFrameBytes: r.number("MaxFrameBytes"),
	}
	if r.boolean("Tls") {
		cfg.TLS = &tls.Config{}
	}
	return build(r, cfg, kafkabus.New)
}

func postgres(r *reader) (provider.Provider, error) {
	return build(r, pgbus.Config{URL: r.text("Url"), Prefix: r.text("Prefix"), Table: r.text("Table"), MaxFrameBytes: r.number("MaxFrameBytes")}, pgbus.New)
}

func mqtt(r *reader) (provider.Provider, error) {
	return build(r, mqttbus.Config{
		URLs: r.list("Urls"), Prefix: r.text("Prefix"), MaxFrameBytes: r.number("MaxFrameBytes"), ReceiveBytes: r.number("ReceiveBytes"), Durable: r.boolean("Durable"),
	}, mqttbus.New)
}

// azure uses the identity that the Azure SDK finds by default where a namespace is named instead of a connection string.
func azure(r *reader) (provider.Provider, error) {
	cfg := azurebus.Config{
		ConnectionString: r.text("ConnectionString"), Namespace: r.text("Namespace"), Prefix: r.text("Prefix"), Subscription: r.text("Subscription"), MaxFrameBytes: r.number("MaxFrameBytes"),
	}
	if cfg.Namespace != "" {
		identity, err := azidentity.NewDefaultAzureCredential(nil)
		if err != nil {
			return nil, fmt.Errorf("find an identity for %s: %w", cfg.Namespace, err)
		}
		cfg.Credential = identity
	}
	return build(r, cfg, azurebus.New)
}

// aws finds region and credentials as the AWS SDK does: environment, profile, role of the task or machine. They are asked for when they are
// needed.
func aws(r *reader) (provider.Provider, error) {
	account, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		return nil, fmt.Errorf("load the settings of the AWS SDK: %w", err)
	}
	return build(r, awsbus.Config{
		AWS: account, Region: r.text("Region"), Endpoint: r.text("Endpoint"), Prefix: r.text("Prefix"), MaxFrameBytes: r.number("MaxFrameBytes"),
	}, awsbus.New)
}
