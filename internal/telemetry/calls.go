package telemetry

import (
	"context"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/tracing"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Transport counts every upstream call, and puts a span around those to Entra: the
// others have theirs from the Azure SDKs. No trace leaves with a call.
func (t *Telemetry) Transport(next http.RoundTripper) http.RoundTripper {
	if t == nil {
		return next
	}
	return &transport{t, next}
}

type transport struct {
	*Telemetry
	next http.RoundTripper
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	service, operation := t.classify(req)
	var span trace.Span
	if service == "entra" {
		_, span = t.tracer.Start(req.Context(), "entra "+operation, trace.WithSpanKind(trace.SpanKindClient),
			trace.WithAttributes(
				attribute.String(keyMethod, req.Method),
				attribute.String(keyServer, req.URL.Hostname())))
	}
	resp, err := t.next.RoundTrip(req)
	class := "error"
	if err == nil {
		class = string(rune('0'+resp.StatusCode/100)) + "xx"
		if throttled(resp) {
			t.metrics.countThrottled(req.Context(), service)
		}
	}
	t.metrics.countCall(req.Context(), service, operation, class)
	if span == nil {
		return resp, err
	}
	if err == nil {
		span.SetAttributes(attribute.Int(keyStatus, resp.StatusCode))
	}
	if err != nil || resp.StatusCode >= 400 {
		span.SetAttributes(attribute.String(keyErrorType, class))
		span.SetStatus(codes.Error, class)
	}
	span.End()
	return resp, err
}

// throttled is true of an answer that asks for fewer calls.
func throttled(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		return true
	case http.StatusServiceUnavailable:
		return resp.Header.Get("Retry-After") != ""
	}
	return false
}

// CloseIdleConnections serves http.Client.
func (t *transport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// classify names a call in few words: what is not known is other.
func (t *Telemetry) classify(req *http.Request) (service, operation string) {
	path := strings.Trim(req.URL.Path, "/")
	service = t.services[hostOf(req.URL.Host)]
	// Locally several services are one host at different ports: the path decides.
	switch {
	case strings.Contains(path, "_apis/"):
		service = "devops"
	case strings.Contains(path, "/oauth2/v2.0/"),
		strings.Contains(path, ".well-known/openid-configuration"),
		strings.HasPrefix(path, "common/discovery/"):
		service = "entra"
	case path == "secrets", strings.HasPrefix(path, "secrets/"), strings.HasPrefix(path, "deletedsecrets"):
		service = "vault"
	case req.Header.Get("X-IDENTITY-HEADER") != "" || strings.HasPrefix(path, "metadata/identity/"):
		service = "identity"
	case service == "":
		service = "other"
	}
	return service, operationOf(service, req.Method, path)
}

func operationOf(service, method, path string) string {
	switch service {
	case "devops":
		return devopsOperation(method, path)
	case "vault":
		return vaultOperation(method, path)
	case "entra":
		return entraOperation(path)
	case "identity":
		return "token"
	}
	return "other"
}

func devopsOperation(method, path string) string {
	_, resource, _ := strings.Cut(path, "_apis/")
	resource = strings.ToLower(resource)
	switch {
	case resource == "connectiondata":
		return "prove"
	case strings.HasPrefix(resource, "tokenadmin"): // and tokenadministration
		return "token-admin"
	case strings.HasPrefix(resource, "graph/"):
		return "graph"
	case resource != "tokens/pats":
		return "other"
	}
	switch method {
	case http.MethodGet:
		return "list"
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodDelete:
		return "revoke"
	}
	return "other"
}

func vaultOperation(method, path string) string {
	parts := strings.Split(path, "/")
	switch {
	case parts[0] == "deletedsecrets":
		return "recover"
	case parts[0] != "secrets":
		return "other"
	case len(parts) == 1:
		return "list"
	case len(parts) == 3 && parts[2] == "versions":
		return "versions"
	}
	switch method {
	case http.MethodGet:
		return "get"
	case http.MethodPut:
		return "set"
	case http.MethodPatch:
		return "update"
	}
	return "other"
}

func entraOperation(path string) string {
	switch {
	case strings.HasSuffix(path, "/token"):
		return "token"
	case strings.HasSuffix(path, "/devicecode"):
		return "devicecode"
	case strings.Contains(path, "discovery"), strings.Contains(path, ".well-known"):
		return "discovery"
	}
	return "other"
}

// Calls is a policy for a pipeline whose client has no spans of its own: it makes one
// for each operation, below which azcore puts one for each try. nil if it is off.
func (t *Telemetry) Calls(module, version string) []policy.Policy {
	if t == nil {
		return nil
	}
	return []policy.Policy{calls{t, t.azure.NewTracer(module, version)}}
}

type calls struct {
	*Telemetry
	tracer tracing.Tracer
}

func (c calls) Do(req *policy.Request) (resp *http.Response, err error) {
	service, operation := c.classify(req.Raw())
	ctx, end := runtime.StartSpan(req.Raw().Context(), service+" "+operation, c.tracer, nil)
	defer func() {
		// The error's text may be long: its kind is enough.
		if err != nil {
			end(errCall)
			return
		}
		end(nil)
	}()
	return req.WithContext(ctx).Next()
}

type callError struct{}

func (callError) Error() string { return "the call failed" }

// errCall stands for every error: a span says that there was one.
var errCall error = callError{}

func (i *instruments) countCall(ctx context.Context, service, operation, class string) {
	i.calls.Add(ctx, 1, withAttributes(
		attribute.String(keyService, service),
		attribute.String(keyCall, operation),
		attribute.String(keyAnswer, class)))
}

func (i *instruments) countThrottled(ctx context.Context, service string) {
	i.throttled.Add(ctx, 1, withAttributes(attribute.String(keyService, service)))
}
