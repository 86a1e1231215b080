package reconcile

import (
	"errors"
	"sync"

	"github.com/azure-patrol/patrol/internal/panics"
)

// maxParallel is how many calls to one service are under way at once.
const maxParallel = 16

// inParallel runs all of fs, maxParallel at a time, and joins their errors.
func inParallel(fs []func() error) error {
	errs := make([]error, len(fs))
	slots := make(chan struct{}, maxParallel)
	var wg sync.WaitGroup
	for i, f := range fs {
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = panics.Held(f)
			<-slots
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
