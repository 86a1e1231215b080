package devops

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// auditAge is how long the audit log keeps an entry.
const auditAge = 90 * 24 * time.Hour

type wireAudit struct {
	ID                      string         `json:"id"`
	CorrelationID           string         `json:"correlationId"`
	ActivityID              string         `json:"activityId"`
	ActorUPN                string         `json:"actorUPN"`
	ActorDisplayName        string         `json:"actorDisplayName"`
	AuthenticationMechanism string         `json:"authenticationMechanism"`
	Timestamp               stamp          `json:"timestamp"`
	ScopeType               string         `json:"scopeType"`
	ScopeDisplayName        string         `json:"scopeDisplayName"`
	IPAddress               string         `json:"ipAddress"`
	UserAgent               string         `json:"userAgent"`
	ActionID                string         `json:"actionId"`
	Data                    map[string]any `json:"data"`
	Details                 string         `json:"details"`
	Area                    string         `json:"area"`
	Category                string         `json:"category"`
}

// queryAudit is the audit log: newest first, in batches. Use of a PAT is not in
// it.
func (s *Service) queryAudit(a *answer, o *organization) {
	q := a.r.URL.Query()
	now := time.Now()
	when := func(name string, otherwise time.Time) (time.Time, error) {
		if !q.Has(name) {
			return otherwise, nil
		}
		return time.Parse(time.RFC3339, q.Get(name))
	}
	from, fromErr := when("startTime", now.Add(-auditAge))
	to, toErr := when("endTime", now)
	size, sizeErr := strconv.Atoi(cmp.Or(q.Get("batchSize"), "200"))
	window := fromErr == nil && toErr == nil && !to.Before(from)
	if !window || sizeErr != nil || size < 1 {
		a.problem(http.StatusBadRequest, "ArgumentException", "The window or the batch size is not valid.")
		return
	}
	size = min(size, cmp.Or(a.switches.AuditPage, 1000))

	s.mu.Lock()
	all := slices.Clone(s.audit)
	for _, p := range s.pats {
		if p.state(now) == Expired {
			all = append(all, Audit{At: p.ValidTo, Action: "Token.PatExpiredEvent", Organization: p.Organization,
				AuthorizationID: p.AuthorizationID, DisplayName: p.DisplayName, Owner: p.User})
		}
	}
	s.mu.Unlock()
	all = slices.DeleteFunc(all, func(e Audit) bool {
		return e.Organization != o.Name || e.At.Before(from) || e.At.After(to) || now.Sub(e.At) > auditAge
	})
	slices.SortStableFunc(all, func(x, y Audit) int { return y.At.Compare(x.At) })

	// The token says where the next batch begins, and of which window.
	mark := "|" + q.Get("startTime") + "|" + q.Get("endTime")
	first := 0
	if raw := q.Get("continuationToken"); raw != "" {
		text, err := base64.RawURLEncoding.DecodeString(raw)
		var rest string
		if err == nil {
			_, err = fmt.Sscanf(string(text), "%d%s", &first, &rest)
		}
		within := first >= 0 && first <= len(all)
		if err != nil || rest != mark || !within {
			a.problem(http.StatusBadRequest, "InvalidContinuationTokenException",
				"The continuation token is not valid.")
			return
		}
	}
	last := min(first+size, len(all))
	rows := []wireAudit{}
	for i, e := range all[first:last] {
		actor := e.Actor
		if actor == "" {
			actor = "Azure DevOps Service"
		}
		rows = append(rows, wireAudit{
			ID: fmt.Sprintf("%d;%s", e.At.UnixNano(), e.AuthorizationID), CorrelationID: e.CorrelationID,
			ActivityID: e.CorrelationID,
			ActorUPN:   e.Actor, ActorDisplayName: actor, AuthenticationMechanism: "AAD", Timestamp: stamp(e.At),
			ScopeType: "Organization", ScopeDisplayName: o.Name + " (Organization)", IPAddress: "192.0.2." +
				strconv.Itoa(1+i%250), UserAgent: e.UserAgent,
			ActionID: e.Action, Area: "Token", Category: "modify",
			Data: map[string]any{"DisplayName": e.DisplayName, "OwnerName": e.Owner,
				"AuthorizationId": e.AuthorizationID},
			Details: "Personal Access Token \"" + e.DisplayName + "\" changed",
		})
	}
	body := map[string]any{"decoratedAuditLogEntries": rows, "hasMore": last < len(all), "continuationToken": nil}
	if last < len(all) {
		body["continuationToken"] = base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(last) + mark))
	}
	if a.switches.WrappedAudit {
		body = map[string]any{"value": body}
	}
	a.json(http.StatusOK, body)
}
