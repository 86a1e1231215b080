package cloud_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
	"github.com/azure-patrol/patrol/sandbox/servicebus"
)

const moreEntities = `{"UserConfig": {"Namespaces": [{"Name": "sbemulatorns",
  "Queues": [{"Name": "mine", "Properties": {}}],
  "Topics": [{"Name": "pat-events", "Properties": {}, "Subscriptions": [{"Name": "failures", "Properties": {},
    "Rules": [{"Name": "failed", "Properties": {"FilterType": "Sql",
      "SqlFilter": {"SqlExpression": "type LIKE '%failed'"}}}]}]}]}], "Logging": {"Type": "File"}}}`

// consumerCredential is the consumer's identity without its endpoint on the way.
type consumerCredential struct {
	cloud *cloud.Cloud
	id    string
}

func (c consumerCredential) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, expires, err := c.cloud.Entra.IdentityToken(c.id, o.Scopes[0][:len(o.Scopes[0])-len("/.default")])
	return azcore.AccessToken{Token: token, ExpiresOn: expires}, err
}

func newConsumerCloud(t *testing.T) (*cloud.Cloud, map[string]string) {
	t.Helper()
	c, err := cloud.New(cloud.Config{Extra: []byte(moreEntities),
		Consumers: []cloud.Consumer{{Name: "consumer", Subscription: "yours"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for _, name := range []string{"nuget-feed", "patrol-identity-build-bot"} {
		if _, err := c.Vault.Put(keyvault.Version{Name: name, Value: "a value", Enabled: true}); err != nil {
			t.Fatal(err)
		}
	}
	return c, c.ConsumerEnvironment("consumer")
}

func TestAConsumerHasItsRolesAtTheVaultAndNoMore(t *testing.T) {
	t.Parallel()
	c, env := newConsumerCloud(t)
	transport := c.Transport()
	defer transport.CloseIdleConnections()
	secrets, err := azsecrets.NewClient(env["KEY_VAULT_URL"], consumerCredential{c, env["AZURE_CLIENT_ID"]},
		&azsecrets.ClientOptions{DisableChallengeResourceVerification: true,
			ClientOptions: azcore.ClientOptions{Transport: &http.Client{Transport: transport}}})
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) error {
		_, err := secrets.GetSecret(t.Context(), name, "", nil)
		return err
	}
	_, list := secrets.NewListSecretPropertiesPager(nil).NextPage(t.Context())
	_, write := secrets.SetSecret(t.Context(), "nuget-feed", azsecrets.SetSecretParameters{Value: new("x")}, nil)
	for _, tt := range []struct {
		what string
		err  error
		want int
	}{
		{"reading a PAT", read("nuget-feed"), 0},
		{"reading a sign-in", read("patrol-identity-build-bot"), http.StatusForbidden},
		{"listing", list, http.StatusForbidden},
		{"writing", write, http.StatusForbidden},
	} {
		status := 0
		if e, ok := errors.AsType[*azcore.ResponseError](tt.err); ok {
			status = e.StatusCode
		}
		if status != tt.want {
			t.Errorf("%s: status %d (%v), want %d", tt.what, status, tt.err, tt.want)
		}
	}
}

func TestAConsumerHasItsRolesAtServiceBusAndNoMore(t *testing.T) {
	t.Parallel()
	c, env := newConsumerCloud(t)
	byKey, err := azservicebus.NewClientFromConnectionString(env["SERVICEBUS_CONNECTION"], nil)
	if err != nil {
		t.Fatal(err)
	}
	byToken, err := c.BusClientAs(consumerCredential{c, env["AZURE_CLIENT_ID"]})
	if err != nil {
		t.Fatal(err)
	}
	for name, client := range map[string]*azservicebus.Client{"by key": byKey, "by token": byToken} {
		defer func() { _ = client.Close(context.WithoutCancel(t.Context())) }()
		for _, tt := range []struct {
			what string
			do   func(context.Context) error
			may  bool
		}{
			{"receive from its subscription", receives(client, "pat-events", "yours"), true},
			{"confirm", sends(client, cloud.ConfirmationQueue), true},
			{"receive from another subscription", receives(client, "pat-events", "all"), false},
			{"send events", sends(client, cloud.EventTopic), false},
			{"send commands", sends(client, cloud.CommandQueue), false},
			{"read confirmations", receives(client, cloud.ConfirmationQueue, ""), false},
		} {
			err := tt.do(t.Context())
			e, isRefused := errors.AsType[*azservicebus.Error](err)
			isRefused = isRefused && e.Code == azservicebus.CodeUnauthorizedAccess
			if isRefused == tt.may {
				t.Errorf("%s, %s: error %v, want it permitted: %v", name, tt.what, err, tt.may)
			}
		}
	}
}

func message(id, typ string) servicebus.Message {
	return servicebus.Message{ID: id, Subject: typ, Properties: map[string]any{"type": typ}}
}

func sends(c *azservicebus.Client, queue string) func(context.Context) error {
	return func(ctx context.Context) error {
		s, err := c.NewSender(queue, nil)
		if err != nil {
			return err
		}
		defer func() { _ = s.Close(ctx) }()
		return s.SendMessage(ctx, &azservicebus.Message{Body: []byte("{}")}, nil)
	}
}

// receives takes what is there; nothing within a moment is no error.
func receives(c *azservicebus.Client, entity, subscription string) func(context.Context) error {
	return func(ctx context.Context) error {
		r, err := c.NewReceiverForQueue(entity, nil)
		if subscription != "" {
			r, err = c.NewReceiverForSubscription(entity, subscription, nil)
		}
		if err != nil {
			return err
		}
		defer func() { _ = r.Close(ctx) }()
		_, err = r.PeekMessages(ctx, 1, nil)
		return err
	}
}

func TestEntitiesOfAFileAreAddedToThoseOfTheApp(t *testing.T) {
	t.Parallel()
	c, _ := newConsumerCloud(t)
	for i, typ := range []string{"patrol.pat.rotated", "patrol.pat.rotation-failed"} {
		err := c.Bus.Send(cloud.EventTopic, message(fmt.Sprint(i), typ))
		if err != nil {
			t.Fatal(err)
		}
	}
	for entity, want := range map[string]int{"pat-events/Subscriptions/failures": 1,
		"pat-events/Subscriptions/yours": 2, "pat-events/Subscriptions/all": 2} {
		if got := c.Bus.Counts(entity).Active; got != want {
			t.Errorf("%s has %d messages, want %d", entity, got, want)
		}
	}
	if err := c.Bus.Send("mine", message("1", "x")); err != nil {
		t.Errorf("the queue of the file: %v", err)
	}
	_, err := cloud.New(cloud.Config{Extra: []byte("{}")})
	if err == nil {
		t.Error("a file that is none was accepted")
	}
}
