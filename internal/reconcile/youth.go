package reconcile

import "sync/atomic"

// youth is that of a deployment: until the first sweep that has succeeded, as far as
// this process knows.
type youth struct{ over atomic.Bool }

func (y *youth) end() { y.over.Store(true) }

func (y *youth) stands() bool { return !y.over.Load() }
