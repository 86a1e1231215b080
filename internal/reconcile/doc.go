// Package reconcile is the machine: it observes one PAT, has rotation.Decide say what
// comes next, does that, and goes on until nothing is left to do (Reconciler). It also
// holds what concerns many PATs (the sweep), what people order and get at once
// (Actions), and what a process remembers: shared lists of PATs, throttling, what has
// been notified.
//
// Nothing that it remembers is needed for a right decision: a new process decides the
// same from the vault and from Azure DevOps, at the price of a call or of a repeated
// event.
//
// It must not know Azure's wire formats, the Functions host or HTTP: it works with the
// ports of package rotation, and time, pauses and randomness come in from outside.
package reconcile
