package functionshost

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const defaultBodyLimit = 104857600

// ServeHTTP is the host's HTTP front: the routes of the HTTP functions, and the
// host's own below /admin.
func (h *Host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.begin() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer h.tasks.Done()
	// A caller that sends its body slowly must not hold the host's end up.
	defer context.AfterFunc(h.callCtx, func() {
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
	})()

	path := r.URL.EscapedPath()
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch {
	case strings.EqualFold(first, "admin"):
		h.admin(w, r, path)
	case strings.EqualFold(first, "runtime"):
		w.WriteHeader(http.StatusNotFound)
	default:
		h.serveFunction(w, r, path)
	}
}

const welcome = "<!DOCTYPE html><title>Functions host</title>" +
	"<p>Your Functions host is up and running (patrol's sandbox).</p>\n"

func (h *Host) serveFunction(w http.ResponseWriter, r *http.Request, path string) {
	f := h.functionAt(r.Method, path)
	switch {
	case f == nil && path == "/":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, welcome)
	case f == nil:
		w.WriteHeader(http.StatusNotFound) // a wrong method too: never 405
	case h.authorize(r, f) < f.level:
		w.WriteHeader(http.StatusUnauthorized)
	case r.ContentLength > h.bodyLimit():
		w.WriteHeader(http.StatusInternalServerError) // the handler is not asked
	default:
		r.Body = http.MaxBytesReader(w, r.Body, h.bodyLimit())
		h.serveProxied(w, r, f)
	}
}

// functionAt is the first function by name whose template and methods match.
func (h *Host) functionAt(method, path string) *function {
	for _, f := range h.functions {
		if f.isRouted() && f.allows(method) && f.template.match(path) {
			return f
		}
	}
	return nil
}

func (h *Host) bodyLimit() int64 {
	text, _ := h.settings.get("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT")
	if limit, err := strconv.ParseInt(text, 10, 64); err == nil {
		return limit
	}
	return defaultBodyLimit
}

// authorize gives the level that the caller's key opens. The header comes first; a key in
// it hides one in the query.
func (h *Host) authorize(r *http.Request, f *function) authLevel {
	key := r.Header.Get(headerKey)
	if key == "" {
		key = r.URL.Query().Get("code")
	}
	opens := func(want string) bool {
		return want != "" && subtle.ConstantTimeCompare([]byte(key), []byte(want)) == 1
	}
	if opens(h.cfg.Keys.Master) {
		return levelAdmin
	}
	if opens(h.cfg.Keys.Host) {
		return levelFunction
	}
	if f != nil {
		for name, want := range h.cfg.Keys.Function {
			if strings.EqualFold(name, f.name) && opens(want) {
				return levelFunction
			}
		}
	}
	return levelAnonymous
}

// admin serves the host's own routes.
func (h *Host) admin(w http.ResponseWriter, r *http.Request, path string) {
	name, isFunction := strings.CutPrefix(strings.ToLower(path), "/admin/functions/")
	switch {
	case strings.EqualFold(path, "/admin/host/ping"):
		if r.Method != http.MethodGet && r.Method != http.MethodPost {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if len(h.functions) > 0 {
			// The health monitor asks the handler too; its answer is only logged.
			h.ping(h.callCtx)
		}
		w.WriteHeader(http.StatusOK)
	case h.authorize(r, nil) < levelAdmin:
		w.WriteHeader(http.StatusUnauthorized)
	case r.Method == http.MethodGet && strings.EqualFold(path, "/admin/host/status"):
		var problems []string
		for _, p := range h.problems {
			problems = append(problems, p.String())
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"state": "Running", "version": h.cfg.Version, "errors": problems,
			"processUptime": time.Since(h.started).Milliseconds(), "functions": h.Functions(),
		})
	case r.Method == http.MethodPost && isFunction && name != "":
		h.adminInvoke(w, r, name)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// adminInvoke starts a function by hand; the answer does not wait for it.
func (h *Host) adminInvoke(w http.ResponseWriter, r *http.Request, name string) {
	f := h.function(name)
	if f == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		w.WriteHeader(http.StatusUnsupportedMediaType)
		return
	}
	var body struct {
		Input *string `json:"input"`
	}
	err = json.NewDecoder(http.MaxBytesReader(w, r.Body, defaultBodyLimit)).Decode(&body)
	if err != nil && !errors.Is(err, io.EOF) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if f.trigger.is(typeHTTPTrigger) {
		http.Error(w, "this host runs HTTP functions through their routes only", http.StatusBadRequest)
		return
	}
	var input string
	if body.Input != nil {
		input = *body.Input
	}
	h.tasks.Go(func() { _ = h.manual(f, input) }) // its failure is in the log
	w.WriteHeader(http.StatusAccepted)
}
