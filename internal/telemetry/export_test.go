package telemetry

// What the external tests look at.
var (
	EncodeSpans   = encodeSpans
	EncodeMetrics = encodeMetrics
	Rejected      = rejected
)
