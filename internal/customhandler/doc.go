// Package customhandler is the handler's side of the protocol between the Azure
// Functions host (v4) and a custom handler: the host starts the process, polls
// GET / until anything answers, and then sends every timer tick and Service Bus
// message as a POST of a JSON envelope to /<FunctionName>, and HTTP triggers as
// they are, under /api/.
//
// The protocol has sharp edges, and this package is where they are blunted: an
// empty answer hangs the invocation until the host kills the process, strings
// arrive encoded twice, dates without a zone, and the properties of a JSON message
// body overwrite the broker's own metadata. See Message and Mux.
//
// It knows nothing of patrol's domain: functions are plain Go functions of a
// context and a typed payload.
package customhandler
