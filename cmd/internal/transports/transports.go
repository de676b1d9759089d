// Package transports says what the programs here can carry events through, beside tcp and udp which
// package appsettings knows itself. One more takes a function, and its line in Factories.
package transports

import (
	"context"
	"crypto/tls"
	"errors"
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
	all := map[string]appsettings.Factory{
		"aws": aws, "azure": azure, "jetstream": jetStream, "kafka": kafka, "mqtt": mqtt, "nats": nats,
		"postgres": postgres, "rabbit": rabbit, "redis": redis, "redisstreams": redisStreams,
	}
	for name, make := range all {
		all[name] = func(s appsettings.Section) (provider.Provider, error) {
			p, err := make(s)
			err = s.Place(err)
			if _, told := errors.AsType[*appsettings.Error](err); err != nil && !told {
				err = fmt.Errorf("section Carillon:%s: %w", strings.ToUpper(name[:1])+name[1:], err)
			}
			return p, err
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

// build makes a transport of what was read from its section, unless something is wrong there.
func build[C any, P provider.Provider](s appsettings.Section, cfg C, make func(C) (P, error)) (provider.Provider, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	p, err := make(cfg)
	if err != nil {
		return nil, err // and not p, which is nil with a type
	}
	return p, nil
}

func natsConfig(s appsettings.Section) natsbus.Config {
	return natsbus.Config{
		URLs: s.List("Urls"), User: s.Get("User"), Password: s.Get("Password"), Token: s.Get("Token"),
		CredentialsFile: s.Get("CredentialsFile"), NKeyFile: s.Get("NkeyFile"),
		Prefix: s.Get("Prefix"), MaxFrameBytes: s.Bytes("MaxFrameBytes"), ReceiveBytes: s.Bytes("ReceiveBytes"),
	}
}

func nats(s appsettings.Section) (provider.Provider, error) {
	return build(s, natsConfig(s), natsbus.New)
}

func jetStream(s appsettings.Section) (provider.Provider, error) {
	return build(s, natsbus.JetStreamConfig{
		Config: natsConfig(s), MaxAge: s.Duration("MaxAge"), MaxBytes: int64(s.Bytes("MaxBytes")), Replicas: s.Int("Replicas"), Memory: s.Bool("Memory"),
	}, natsbus.NewJetStream)
}

func redisConfig(s appsettings.Section) redisbus.Config {
	return redisbus.Config{URL: s.Get("Url"), Prefix: s.Get("Prefix"), MaxFrameBytes: s.Bytes("MaxFrameBytes")}
}

func redis(s appsettings.Section) (provider.Provider, error) {
	return build(s, redisConfig(s), redisbus.New)
}

// keep is how many frames a Redis stream keeps if nothing else is said.
const keep = 4096

func redisStreams(s appsettings.Section) (provider.Provider, error) {
	cfg := redisConfig(s)
	if cfg.Keep = s.Int("Keep"); cfg.Keep == 0 {
		cfg.Keep = keep
	}
	return build(s, cfg, redisbus.New)
}

func rabbit(s appsettings.Section) (provider.Provider, error) {
	return build(s, rabbitbus.Config{
		URLs: s.List("Urls"), Prefix: s.Get("Prefix"), MaxFrameBytes: s.Bytes("MaxFrameBytes"), QueueBytes: s.Bytes("QueueBytes"), Persistent: s.Bool("Persistent"),
	}, rabbitbus.New)
}

func kafka(s appsettings.Section) (provider.Provider, error) {
	cfg := kafkabus.Config{
		Brokers: s.List("Brokers"), User: s.Get("User"), Password: s.Get("Password"), Mechanism: s.Get("Mechanism"), Prefix: s.Get("Prefix"),
		Partitions: s.Int("Partitions"), Replicas: s.Int("Replicas"), Retention: s.Duration("Retention"), MaxFrameBytes: s.Bytes("MaxFrameBytes"),
	}
	if s.Bool("Tls") {
		cfg.TLS = &tls.Config{}
	}
	return build(s, cfg, kafkabus.New)
}

func postgres(s appsettings.Section) (provider.Provider, error) {
	return build(s, pgbus.Config{URL: s.Get("Url"), Prefix: s.Get("Prefix"), Table: s.Get("Table"), MaxFrameBytes: s.Bytes("MaxFrameBytes")}, pgbus.New)
}

func mqtt(s appsettings.Section) (provider.Provider, error) {
	return build(s, mqttbus.Config{
		URLs: s.List("Urls"), Prefix: s.Get("Prefix"), MaxFrameBytes: s.Bytes("MaxFrameBytes"), ReceiveBytes: s.Bytes("ReceiveBytes"), Durable: s.Bool("Durable"),
	}, mqttbus.New)
}

// azure uses the identity that the Azure SDK finds by default where a namespace is named instead of a connection string.
func azure(s appsettings.Section) (provider.Provider, error) {
	return build(s, azurebus.Config{
		ConnectionString: s.Get("ConnectionString"), Namespace: s.Get("Namespace"), Prefix: s.Get("Prefix"), Subscription: s.Get("Subscription"), MaxFrameBytes: s.Bytes("MaxFrameBytes"),
	}, func(cfg azurebus.Config) (*azurebus.Provider, error) {
		if cfg.Namespace != "" {
			identity, err := azidentity.NewDefaultAzureCredential(nil)
			if err != nil {
				return nil, fmt.Errorf("find an identity for the namespace: %w", err)
			}
			cfg.Credential = identity
		}
		return azurebus.New(cfg)
	})
}

// aws finds region and credentials as the AWS SDK does: environment, profile, role of the task or machine. They are asked for when they are
// needed.
func aws(s appsettings.Section) (provider.Provider, error) {
	return build(s, awsbus.Config{
		Region: s.Get("Region"), Endpoint: s.Get("Endpoint"), Prefix: s.Get("Prefix"), MaxFrameBytes: s.Bytes("MaxFrameBytes"),
	}, func(cfg awsbus.Config) (*awsbus.Provider, error) {
		account, err := config.LoadDefaultConfig(context.Background())
		if err != nil {
			return nil, fmt.Errorf("load the settings of the AWS SDK: %w", err)
		}
		cfg.AWS = account
		return awsbus.New(cfg)
	})
}
