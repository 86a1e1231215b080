// Package rotation is the domain of patrol: which PAT is wanted (Spec), what is
// there (Observed), what to do next and why (Decide), and the doing of it, one
// step after another, until nothing is left to do (Reconciler).
//
// It imports the standard library only. It must not know Azure, HTTP, AMQP, JSON
// on any wire, or the Functions host: adapters implement the small interfaces of
// ports.go, and time comes in from outside.
package rotation
