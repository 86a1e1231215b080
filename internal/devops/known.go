package devops

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// maxEndedPages bounds the look at PATs that have ended. A mistyped id is in none of their
// pages, and there may be a thousand: a PAT for each day of years.
const maxEndedPages = 10

// Known reports whether the owner has or had this PAT in the organization, revoked and
// expired ones included. Azure DevOps does not say whether it still shows a revoked
// PAT by its id, so where it does not, the newest thousand of them are read until it comes.
func (c *Client) Known(ctx context.Context, o rotation.Owner, authorizationID string) (bool, error) {
	_, err := c.Get(ctx, o, authorizationID)
	if err == nil || !errors.Is(err, rotation.ErrNotFound) {
		return err == nil, err
	}
	k := &call{owner: o, doing: "finding a PAT that has ended"}
	q := url.Values{
		"displayFilterOption": {"all"}, "sortByOption": {"displayDate"}, "isSortAscending": {"false"},
		"$top": {"100"},
	}
	tokens := map[string]bool{}
	for range maxEndedPages {
		a, err := c.do(ctx, k, http.MethodGet, patsResource, q, nil)
		if err != nil {
			return false, err
		}
		var page pagedPATs
		if err := a.decode(&page); err != nil {
			return false, k.badAnswer(a)
		}
		for _, w := range page.PATs {
			if strings.EqualFold(w.AuthorizationID, authorizationID) {
				return true, nil
			}
		}
		next := page.ContinuationToken
		if next == "" {
			return false, nil
		}
		if tokens[next] {
			return false, k.badAnswer(a)
		}
		tokens[next] = true
		q.Set("continuationToken", next)
	}
	// Newest first: what is further back than this has ended long ago, or never was.
	return false, nil
}
