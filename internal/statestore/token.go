package statestore

import (
	"context"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// sharedToken gives the calls of a store, each with a client of its own, one token, and
// asks for it once. It is never used up to its last moments.
type sharedToken struct {
	credential azcore.TokenCredential
	now        func() time.Time

	mu     sync.Mutex
	token  azcore.AccessToken
	flight chan struct{} // closed when whoever asks has an answer; nil: nobody asks
}

// tokenReserve is how long a token must still be good.
const tokenReserve = 5 * time.Minute

// GetToken gives the token that is there, or gets a new one.
func (s *sharedToken) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if o.Claims != "" { // the service wants another one
		return s.ask(ctx, o, nil)
	}
	for {
		s.mu.Lock()
		if s.token.ExpiresOn.Sub(s.now()) > tokenReserve {
			token := s.token
			s.mu.Unlock()
			return token, nil
		}
		flight := s.flight
		if flight == nil {
			flight = make(chan struct{})
			s.flight = flight
			s.mu.Unlock()
			return s.ask(ctx, o, flight)
		}
		s.mu.Unlock()
		select {
		case <-flight:
		case <-ctx.Done():
			return azcore.AccessToken{}, ctx.Err()
		}
	}
}

func (s *sharedToken) ask(ctx context.Context, o policy.TokenRequestOptions,
	flight chan struct{}) (azcore.AccessToken, error) {
	token, err := s.credential.GetToken(ctx, o)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.token = token
	}
	if flight != nil {
		s.flight = nil
		close(flight)
	}
	return token, err
}
