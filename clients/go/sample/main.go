// Command sample is a consumer that uses a PAT twice a second and says on each line what
// came of it. `make consumer` runs it beside the sandbox; sandbox.env has what it reads.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	keeper "github.com/azure-patrol/patrol/clients/go"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "sample:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	credential, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{
		ID: azidentity.ClientID(os.Getenv("AZURE_CLIENT_ID"))})
	if err != nil {
		return err
	}
	secrets, err := azsecrets.NewClient(os.Getenv("KEY_VAULT_URL"), credential,
		&azsecrets.ClientOptions{DisableChallengeResourceVerification: true})
	if err != nil {
		return err
	}
	bus, err := client(credential)
	if err != nil {
		return err
	}
	defer func() { _ = bus.Close(context.WithoutCancel(ctx)) }()
	confirmations, err := bus.NewSender(os.Getenv("CONFIRMATION_QUEUE"), nil)
	if err != nil {
		return err
	}
	receiver, err := bus.NewReceiverForSubscription(os.Getenv("EVENT_TOPIC"), os.Getenv("SERVICEBUS_SUBSCRIPTION"), nil)
	if err != nil {
		return err
	}
	k, err := keeper.New(ctx, keeper.Config{PAT: pat(), Secrets: secrets, Consumer: os.Getenv("PATROL_CONSUMER"),
		Confirmations: confirmations, Try: try, Every: time.Minute,
		Log: slog.New(slog.NewTextHandler(os.Stdout, nil))})
	if err != nil {
		return err
	}
	following := make(chan error, 1)
	go func() { following <- k.Run(ctx, receiver) }()
	use(ctx, k)
	return <-following
}

// client reaches a namespace in Azure by its name alone; a sandbox has a port of its own.
func client(credential *azidentity.ManagedIdentityCredential) (*azservicebus.Client, error) {
	namespace := os.Getenv("SERVICEBUS_NAMESPACE")
	host, port, err := net.SplitHostPort(namespace)
	if err != nil {
		return azservicebus.NewClient(namespace, credential, nil)
	}
	return azservicebus.NewClient(host, credential, &azservicebus.ClientOptions{CustomEndpoint: "127.0.0.1:" + port})
}

func pat() string {
	if name := os.Getenv("PATROL_PAT"); name != "" {
		return name
	}
	return "three-minutes"
}

func projects() string {
	return os.Getenv("AZURE_DEVOPS_URL") + "/" + os.Getenv("AZURE_DEVOPS_ORG") + "/_apis/projects?api-version=7.1"
}

// try is a call that the PAT's scopes permit.
func try(ctx context.Context, value string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, projects(), nil)
	if err != nil {
		return err
	}
	r.SetBasicAuth("", value)
	r.Header.Set("X-TFS-FedAuthRedirect", "Suppress")
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", answer.StatusCode)
	}
	return nil
}

// use asks for the projects again and again.
func use(ctx context.Context, k *keeper.Keeper) {
	every, err := time.ParseDuration(os.Getenv("SAMPLE_EVERY") + "ms")
	if err != nil {
		every = 500 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	transport := k.Transport(nil)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, projects(), nil)
		if err != nil {
			fmt.Println("use", err, k.Version())
			return
		}
		answer, err := transport.RoundTrip(r)
		if err != nil {
			fmt.Println("use failed", k.Version())
			continue
		}
		_ = answer.Body.Close()
		fmt.Println("use", answer.StatusCode, k.Version())
	}
}
