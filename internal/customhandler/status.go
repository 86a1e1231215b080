package customhandler

import "net/http"

// StatusRecorder is a ResponseWriter that remembers the status of the answer, for
// logs and measurements. Make one with RecordStatus.
type StatusRecorder struct {
	http.ResponseWriter
	status int // 0: nothing is written yet
}

// RecordStatus gives a ResponseWriter that writes to w and remembers the status.
func RecordStatus(w http.ResponseWriter) *StatusRecorder {
	return &StatusRecorder{ResponseWriter: w}
}

// Status is the answer's status. A handler that has returned and has written nothing
// has answered 200.
func (r *StatusRecorder) Status() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

// Written reports whether the status is on its way to the client: another one would
// come too late.
func (r *StatusRecorder) Written() bool { return r.status != 0 }

// WriteHeader implements http.ResponseWriter. An informational status (other than 101,
// which ends HTTP) is not the answer's.
func (r *StatusRecorder) WriteHeader(status int) {
	isFinal := status >= http.StatusOK || status == http.StatusSwitchingProtocols
	if isFinal && r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *StatusRecorder) Write(b []byte) (int, error) {
	r.useDefault()
	return r.ResponseWriter.Write(b)
}

// FlushError serves http.ResponseController: a flush sends the status, too.
func (r *StatusRecorder) FlushError() error {
	r.useDefault()
	return http.NewResponseController(r.ResponseWriter).Flush()
}

// Unwrap serves http.ResponseController.
func (r *StatusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// useDefault does what net/http does where no status was set.
func (r *StatusRecorder) useDefault() {
	if r.status == 0 {
		r.status = http.StatusOK
	}
}
