package blob

import (
	"net/http"
	"strings"
	"time"
)

// conditions are the conditional headers of a request; the zero value has none.
type conditions struct {
	match, noneMatch            string // an ETag with its quotes, or *
	modifiedSince, unmodifiedBy time.Time
}

// readConditions reads the headers. The service takes one ETag where HTTP takes a list,
// and the quotes are part of it.
func readConditions(h http.Header) (c conditions, err error) {
	for _, tag := range []struct {
		name string
		into *string
	}{{"If-Match", &c.match}, {"If-None-Match", &c.noneMatch}} {
		values := h.Values(tag.name)
		if len(values) == 0 {
			continue
		}
		v := strings.TrimSpace(values[0])
		if len(values) > 1 || strings.Contains(v, ",") {
			return c, multipleConditions()
		}
		quoted := len(v) > 2 && v[0] == '"' && strings.IndexByte(v[1:], '"') == len(v)-2
		if v != "*" && !quoted {
			return c, badHeader(tag.name)
		}
		*tag.into = v
	}
	for _, date := range []struct {
		name string
		into *time.Time
	}{{"If-Modified-Since", &c.modifiedSince}, {"If-Unmodified-Since", &c.unmodifiedBy}} {
		if v := h.Get(date.name); v != "" {
			*date.into, err = http.ParseTime(v)
			if err != nil {
				return c, badHeader(date.name)
			}
		}
	}
	if c.match != "" && c.noneMatch != "" {
		return c, multipleConditions()
	}
	return c, nil
}

// forRead holds a read against the blob that is there, or against nil.
func (c conditions) forRead(b *Blob) error {
	switch {
	case c.noneMatch == "*":
		return &failure{http.StatusBadRequest, "UnsatisfiableCondition",
			"The request includes an unsatisfiable condition for this operation."}
	case b == nil && c.match != "":
		return conditionNotMet(http.StatusPreconditionFailed)
	case b == nil:
		return nil
	case c.match != "" && c.match != "*" && c.match != b.ETag:
		return conditionNotMet(http.StatusPreconditionFailed)
	case c.match == "" && !c.unmodifiedBy.IsZero() && seconds(b.Modified).After(c.unmodifiedBy):
		return conditionNotMet(http.StatusPreconditionFailed)
	case c.noneMatch != "" && c.noneMatch == b.ETag:
		return conditionNotMet(http.StatusNotModified)
	case c.noneMatch == "" && !c.modifiedSince.IsZero() && !seconds(b.Modified).After(c.modifiedSince):
		return conditionNotMet(http.StatusNotModified)
	}
	return nil
}

// forWrite holds a write against the blob that is there, or against nil. creates is for
// Put Blob, whose If-None-Match: * has an answer of its own.
func (c conditions) forWrite(b *Blob, creates bool) error {
	switch {
	case b == nil && c.match != "" && c.match != "*":
		return conditionNotMet(http.StatusPreconditionFailed)
	case b == nil:
		return nil
	case c.noneMatch == "*" && creates:
		return &failure{http.StatusConflict, "BlobAlreadyExists", "The specified blob already exists."}
	case c.noneMatch == "*" || c.noneMatch == b.ETag:
		return conditionNotMet(http.StatusPreconditionFailed)
	case c.match != "" && c.match != "*" && c.match != b.ETag:
		return conditionNotMet(http.StatusPreconditionFailed)
	case c.noneMatch == "" && !c.modifiedSince.IsZero() && !seconds(b.Modified).After(c.modifiedSince):
		return conditionNotMet(http.StatusPreconditionFailed)
	case c.match == "" && !c.unmodifiedBy.IsZero() && seconds(b.Modified).After(c.unmodifiedBy):
		return conditionNotMet(http.StatusPreconditionFailed)
	}
	return nil
}

// seconds is how exact a time is in a header.
func seconds(t time.Time) time.Time { return t.Truncate(time.Second) }

func conditionNotMet(status int) *failure {
	return &failure{status, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met."}
}

func multipleConditions() *failure {
	return &failure{http.StatusBadRequest, "MultipleConditionHeadersNotSupported",
		"Multiple condition headers are not supported."}
}
