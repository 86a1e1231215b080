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
	switch first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/"); {
	case path == "/" && h.options.routePrefix == "":
		if h.route(w, r, path) {
			return
		}
		fallthrough
	case path == "/":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<!DOCTYPE html><title>Functions host</title><p>Your Functions host is up and running (patrol's sandbox).</p>\n")
		return
	case strings.EqualFold(first, "admin"):
		h.admin(w, r, path)
		return
	case strings.EqualFold(first, "runtime"):
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if !h.route(w, r, path) {
		w.WriteHeader(http.StatusNotFound) // a wrong method too: never 405
	}
}

// route serves the first function by name whose template and methods match.
func (h *Host) route(w http.ResponseWriter, r *http.Request, path string) bool {
	for _, f := range h.functions {
		if f.template == nil || f.disabled || !f.allows(r.Method) {
			continue
		}
		params, ok := f.template.match(path)
		if !ok {
			continue
		}
		level := h.authorize(r, f)
		if level < f.level {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		limit := int64(defaultBodyLimit)
		if v, ok := h.settings.get("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT"); ok {
			if n, err := strconv.ParseInt(v, 10, 64); err == nil {
				limit = n
			}
		}
		if r.ContentLength > limit {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return true
		}
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		switch {
		case f.plain && h.options.proxying && h.cfg.Mode == ModeAuto:
			h.serveProxied(w, r, f)
		case f.plain && h.options.forwarding:
			h.serveForwarded(w, r, f)
		default:
			h.serveEnvelope(w, r, f, params, level)
		}
		return true
	}
	return false
}

// authorize tells what the caller's key opens. The header comes first; a key in
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
	switch name, isFunction := strings.CutPrefix(strings.ToLower(path), "/admin/functions/"); {
	case strings.EqualFold(path, "/admin/host/ping"):
		if r.Method != http.MethodGet && r.Method != http.MethodPost {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if len(h.functions) > 0 {
			// The health monitor asks the handler too; its answer is only logged.
			up, err := h.worker.answers(h.callCtx)
			h.log.Debug("worker status", "answers", up && err == nil)
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
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		w.WriteHeader(http.StatusUnsupportedMediaType)
		return
	}
	var body struct {
		Input *string `json:"input"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, defaultBodyLimit)).Decode(&body); err != nil && !errors.Is(err, io.EOF) {
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
