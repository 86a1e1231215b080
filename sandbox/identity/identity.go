// Package identity is a local managed identity endpoint as App Service and
// Functions offer it to an app (IDENTITY_ENDPOINT and IDENTITY_HEADER,
// api-version 2019-08-01).
//
// It knows the protocol only; tokens come from whoever mints them.
package identity

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/azure-patrol/patrol/sandbox/faults"
)

const apiVersion = "2019-08-01"

// Minter makes tokens for the identity that a client id names. It fails for an
// identity or a resource that does not exist.
type Minter interface {
	IdentityToken(clientID, resource string) (token string, expires time.Time, err error)
}

// Config says what app asks here.
type Config struct {
	Tokens Minter
	// Header is the value that the app must send as X-IDENTITY-HEADER.
	Header string
	// Assigned are the client ids of the identities that are assigned to the
	// app.
	Assigned []string
	// SystemAssigned is the client id of the app's own identity; empty: the
	// app has none, and a request must name an identity.
	SystemAssigned string
	Injector       *faults.Injector // counts calls (service "identity", operation "token"); may be nil
}

// New makes the endpoint. Any path is the endpoint.
func New(cfg Config) http.Handler {
	return cfg.Injector.Wrap("identity", func(*http.Request) string { return "token" }, http.HandlerFunc(cfg.serve))
}

func (cfg Config) serve(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id := q.Get("client_id")
	if id == "" {
		id = cfg.SystemAssigned
	}
	header := r.Header.Get("X-IDENTITY-HEADER")
	switch {
	case r.Method != http.MethodGet:
		refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "The endpoint answers GET only.")
	case subtle.ConstantTimeCompare([]byte(header), []byte(cfg.Header)) != 1:
		refuse(w, http.StatusBadRequest, "BadRequest", "The X-IDENTITY-HEADER header is missing or wrong.")
	case q.Get("api-version") != apiVersion:
		refuse(w, http.StatusBadRequest, "UnsupportedApiVersion", "The api-version must be "+apiVersion+".")
	case q.Get("resource") == "":
		refuse(w, http.StatusBadRequest, "BadRequest", "The parameter resource is missing.")
	case id == "" || id != cfg.SystemAssigned && !slices.Contains(cfg.Assigned, id):
		refuse(w, http.StatusBadRequest, "BadRequest",
			"No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.")
	default:
		token, expires, err := cfg.Tokens.IdentityToken(id, q.Get("resource"))
		if err != nil {
			refuse(w, http.StatusBadRequest, "BadRequest", err.Error())
			return
		}
		answer(w, http.StatusOK, map[string]string{
			"access_token": token, "client_id": id, "expires_on": fmt.Sprint(expires.Unix()),
			"not_before": fmt.Sprint(time.Now().Unix()), "resource": q.Get("resource"), "token_type": "Bearer",
		})
	}
}

func refuse(w http.ResponseWriter, status int, code, text string) {
	answer(w, status, map[string]any{"statusCode": status, "message": text, "error": map[string]string{"code": code,
		"message": text}})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
