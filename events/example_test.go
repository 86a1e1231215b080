package events_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/azure-patrol/patrol/events"
)

// A service that holds a PAT in memory listens for its replacement and reads the
// secret again. The bytes come from wherever patrol's topic is delivered to: a
// Service Bus subscription, a webhook, a file.
func ExampleSubscriber() {
	messages := [][]byte{
		[]byte(`{"specversion":"1.0", "id":"k3v5x2abcd/7d0c/rotated", "source":"/patrol/contoso.vault.azure.net",
			"type":"patrol.pat.rotated", "subject":"nuget-feed", "time":"2026-11-24T12:00:00Z",
			"datacontenttype":"application/json", "data":{"pat":"nuget-feed", "rotationId":"k3v5x2abcd",
			"secret":{"id":"https://contoso.vault.azure.net/secrets/nuget-feed/9f", "name":"nuget-feed",
			"version":"9f"}, "authorizationId":"7d0c",
			"validFrom":"2026-11-24T12:00:00Z", "validTo":"2026-12-01T12:00:00Z",
			"previous":{"version":"8e", "authorizationId":"1b2a", "revokeAt":"2026-11-24T14:01:00Z"}}}`),
		[]byte(`not an event`),
	}
	messages = append(messages, messages[0]) // brokers deliver at least once

	subscriber := events.Subscriber{
		OnRotated: func(_ context.Context, _ events.Event, d events.Rotated) error {
			fmt.Println("read", d.Secret.ID)
			if d.Previous != nil {
				fmt.Println("the old one works until", d.Previous.RevokeAt.Format(time.Kitchen))
			}
			return nil
		},
	}
	for _, m := range messages {
		switch err := subscriber.Handle(context.Background(), m); {
		case errors.Is(err, events.ErrMalformed), errors.Is(err, events.ErrData):
			fmt.Println("dead-letter:", err)
		case err != nil:
			fmt.Println("abandon:", err)
		default:
			fmt.Println("complete")
		}
	}
	// Output:
	// read https://contoso.vault.azure.net/secrets/nuget-feed/9f
	// the old one works until 2:01PM
	// complete
	// dead-letter: not a CloudEvents 1.0 event: broken JSON at byte 2
	// complete
}

func ExampleDecode() {
	e, err := events.Decode([]byte(`{"specversion":"1.0", "id":"build-bot/sign-in-required/1795521600",
		"source":"/patrol/contoso.vault.azure.net", "type":"patrol.identity.sign-in-required",
		"data":{"identity":"build-bot", "user":"build-bot@contoso.com", "code":"AADSTS700082"}}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	if d, ok := e.Data.(events.SignInRequired); ok {
		fmt.Println(d.User, "must sign in:", d.Code)
	}
	// Output: build-bot@contoso.com must sign in: AADSTS700082
}
