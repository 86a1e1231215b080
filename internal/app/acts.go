package app

import (
	"context"
	"net/http"
	"time"

	"github.com/azure-patrol/patrol/internal/statestore"
	"github.com/azure-patrol/patrol/internal/web"
)

// actAge is how long acts are kept at least, and pruneEvery how often old ones are deleted.
const (
	actAge     = 48 * time.Hour
	pruneEvery = 24 * time.Hour
)

func (s *state) actToKeep(a web.KeptAct, status int) statestore.Act {
	return statestore.Act{Key: a.Operation, Operation: a.Operation, Process: s.process, Asked: a.Asked,
		Status: status, Body: a.Answer, Expires: a.Expires.UTC()}
}

// ClaimAct takes an idempotency key for an act, unless another one has it.
func (s *state) ClaimAct(ctx context.Context, a web.KeptAct) (kept web.KeptAct, ours bool, err error) {
	err = s.call(ctx, func(ctx context.Context) error {
		c, err := s.store.ClaimAct(ctx, s.actToKeep(a, 0))
		if err != nil {
			return err
		}
		ours = c.Ours
		kept = web.KeptAct{Operation: c.Act.Operation, Asked: c.Act.Asked, Expires: c.Act.Expires}
		if ours {
			kept.Claim = string(c.ETag)
		}
		if c.Act.Status != 0 {
			kept.Answer = c.Act.Body
		}
		return nil
	})
	return kept, ours, err
}

// FinishAct keeps an act's answer, and once a day deletes old ones.
func (s *state) FinishAct(ctx context.Context, a web.KeptAct) error {
	err := s.call(ctx, func(ctx context.Context) error {
		_, err := s.store.FinishAct(ctx, s.actToKeep(a, http.StatusOK), statestore.ETag(a.Claim))
		return err
	})
	if err != nil || !s.isPruneDue() {
		return err
	}
	return s.call(ctx, func(ctx context.Context) error {
		_, err := s.store.PruneActs(ctx, s.now().Add(-actAge))
		return err
	})
}

func (s *state) isPruneDue() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now().Sub(s.pruned) < pruneEvery {
		return false
	}
	s.pruned = s.now()
	return true
}

// DropAct frees the key of an act that has failed.
func (s *state) DropAct(ctx context.Context, a web.KeptAct) error {
	return s.call(ctx, func(ctx context.Context) error {
		return s.store.DropAct(ctx, a.Operation, statestore.ETag(a.Claim))
	})
}
