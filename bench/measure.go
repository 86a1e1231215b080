package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

// result is a line of the table. Everything is "less is better".
type result struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Spread string  `json:"spread,omitempty"` // of several measurements: the middle half
	Bar    float64 `json:"bar,omitempty"`    // 0: none
	Note   string  `json:"note,omitempty"`
}

func (r result) held() bool { return r.Bar == 0 || r.Value <= r.Bar }

// sample is several measurements of one thing.
type sample []float64

func (s sample) quantile(q float64) float64 {
	sorted := slices.Sorted(slices.Values(s))
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low+1 >= len(sorted) {
		return sorted[low]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

func (s sample) median() float64 { return s.quantile(0.5) }

func (s sample) spread() string {
	return fmt.Sprintf("%.3g to %.3g", s.quantile(0.25), s.quantile(0.75))
}

// exponent fits y = a * x^b and gives b.
func exponent(xs, ys []float64) float64 {
	var sx, sy, sxx, sxy float64
	n := float64(len(xs))
	for i := range xs {
		x, y := math.Log(xs[i]), math.Log(ys[i])
		sx, sy, sxx, sxy = sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}

// newCloud is a cloud on loopback with a fleet on it; its manifest is in dir.
func newCloud(dir string, f fleet, provisioned bool) (*cloud.Cloud, []string, error) {
	manifest := filepath.Join(dir, "pats.yaml")
	if err := os.WriteFile(manifest, []byte(f.manifest()), 0o600); err != nil {
		return nil, nil, err
	}
	c, err := cloud.New(cloud.Config{Manifest: manifest, Vault: func(v *keyvault.Config) { v.NoThrottle = true }})
	if err != nil {
		return nil, nil, err
	}
	if err := f.people(c); err != nil {
		c.Close()
		return nil, nil, err
	}
	if !provisioned {
		return c, nil, nil
	}
	ids, err := f.provision(c)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c, ids, nil
}

// starts measures from exec to the first answer, each handler in turn.
func (b *bench) starts(ctx context.Context) error {
	dir, err := os.MkdirTemp(b.dir, "start-")
	if err != nil {
		return err
	}
	c, _, err := newCloud(dir, fleet{pats: 100, identities: 1}, false)
	if err != nil {
		return err
	}
	defer c.Close()
	type contender struct {
		name string
		args []string
		env  map[string]string
		took sample
		size sample
	}
	all := []*contender{{name: "patrol", args: []string{b.handler}, env: c.Environment()}, {name: "an empty Go handler",
		args: []string{b.empty}}}
	if b.node != "" {
		all = append(all, &contender{name: "an empty Node handler",
			args: []string{b.node, filepath.Join(b.root, "bench", "empty", "empty.js")}})
	}
	rounds := 25
	if b.quick {
		rounds = 7
	}
	for range rounds {
		for _, k := range all {
			p, err := start(ctx, k.env, k.args[0], k.args[1:]...)
			if err != nil {
				return err
			}
			now, _, err := p.memory()
			p.stop()
			if err != nil {
				return err
			}
			k.took, k.size = append(k.took, p.answered.Seconds()*1e3), append(k.size, now/1e6)
		}
	}
	if n := len(c.Injector.Counts()); n > 0 {
		return fmt.Errorf("the handler has called %d kinds of operations upstream before it was asked anything", n)
	}
	for _, k := range all {
		b.add(result{Name: "start to first answer: " + k.name, Value: k.took.median(), Unit: "ms",
			Spread: k.took.spread()})
	}
	for _, k := range all[1:] {
		r := result{Name: "start: patrol against " + k.name, Value: all[0].took.median() / k.took.median(), Unit: "x",
			Spread: ratios(all[0].took, k.took).spread()}
		if k == all[1] {
			r.Bar = 4
		}
		b.add(r)
	}
	for _, k := range all {
		b.add(result{Name: "memory after start: " + k.name, Value: k.size.median(), Unit: "MB",
			Spread: k.size.spread()})
	}
	return nil
}

// ratios pairs the measurements of the same round.
func ratios(a, b sample) sample {
	out := make(sample, len(a))
	for i := range a {
		out[i] = a[i] / b[i]
	}
	return out
}

// memory measures the handler after a thousand rotations.
func (b *bench) memory(ctx context.Context) error {
	dir, err := os.MkdirTemp(b.dir, "memory-")
	if err != nil {
		return err
	}
	f := fleet{pats: 1000, identities: 1}
	c, ids, err := newCloud(dir, f, true)
	if err != nil {
		return err
	}
	defer c.Close()
	p, err := handler(ctx, b.handler, c)
	if err != nil {
		return err
	}
	defer p.stop()
	began := time.Now()
	if err := f.rotate(ids, 16, func(n int, pat, from string) error {
		return p.invoke(ctx, "Reconcile", orderEnvelope(n, pat, from))
	}); err != nil {
		return err
	}
	took := time.Since(began)
	if n := c.Injector.Count(keyvault.Service, keyvault.SetSecret); n != f.pats {
		return fmt.Errorf("%d rotations stored %d versions", f.pats, n)
	}
	now, most, err := p.memory()
	if err != nil {
		return err
	}
	used, err := p.cpu()
	if err != nil {
		return err
	}
	b.add(result{Name: "memory after 1,000 rotations", Value: now / 1e6, Unit: "MB", Bar: 40,
		Note: fmt.Sprintf("at most %.0f MB", most/1e6)})
	b.add(result{Name: "processor time of a rotation", Value: used.Seconds() * 1e3 / float64(f.pats), Unit: "ms",
		Note: fmt.Sprintf("%d of them in %.1f s over loopback TLS", f.pats, took.Seconds())})
	return nil
}

// rotate orders every PAT to be rotated, as many at once as there are sessions.
func (f fleet) rotate(ids []string, sessions int, invoke func(n int, pat, from string) error) error {
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		failed error
	)
	next := make(chan int)
	for range sessions {
		wg.Go(func() {
			for i := range next {
				if err := invoke(i, f.name(i), ids[i]); err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			}
		})
	}
	for i := range ids {
		next <- i
	}
	close(next)
	wg.Wait()
	return failed
}

// growth sweeps fleets of growing size of which nothing is due.
func (b *bench) growth(ctx context.Context) error {
	sizes := []int{100, 1_000, 10_000, 100_000}
	if b.quick {
		sizes = sizes[:3]
	}
	var xs, ys []float64
	for _, n := range sizes {
		took, spread, now, most, manifest, err := b.sweeps(ctx, n)
		if err != nil {
			return err
		}
		xs, ys = append(xs, float64(n)), append(ys, took)
		r := result{Name: fmt.Sprintf("memory after a sweep of %s", thousands(n)), Value: now / 1e6, Unit: "MB",
			Note: fmt.Sprintf("at most %.0f MB; start with that manifest %.0f ms", most/1e6, manifest.Seconds()*1e3)}
		if n == 10_000 {
			r.Bar = 64
		}
		b.add(result{Name: fmt.Sprintf("processor time of a sweep of %s", thousands(n)), Value: took * 1e3, Unit: "ms",
			Spread: spread,
			Note:   fmt.Sprintf("%.0f µs a PAT", took*1e6/float64(n))})
		b.add(r)
	}
	b.add(result{Name: fmt.Sprintf("growth of a sweep's processor time, %s to %s", thousands(sizes[1]),
		thousands(sizes[len(sizes)-1])),
		Value: exponent(xs[1:], ys[1:]), Unit: "exponent", Bar: 1.15, Note: "1 is linear"})
	return nil
}

func (b *bench) sweeps(ctx context.Context, n int) (took float64, spread string, now, most float64,
	started time.Duration, err error) {
	dir, err := os.MkdirTemp(b.dir, "sweep-")
	if err != nil {
		return 0, "", 0, 0, 0, err
	}
	// An identity of ten thousand PATs is a busy one.
	f := fleet{pats: n, identities: max(1, n/10_000)}
	c, _, err := newCloud(dir, f, true)
	if err != nil {
		return 0, "", 0, 0, 0, err
	}
	defer c.Close()
	p, err := handler(ctx, b.handler, c)
	if err != nil {
		return 0, "", 0, 0, 0, err
	}
	defer p.stop()
	if err := p.invoke(ctx, "CheckExpiry", timerEnvelope); err != nil { // signs in, connects
		return 0, "", 0, 0, 0, err
	}
	var s sample
	for range min(max(3, 20_000/n), 20) {
		before, err := p.cpu()
		if err != nil {
			return 0, "", 0, 0, 0, err
		}
		c.Injector.ResetCounts()
		if err := p.invoke(ctx, "CheckExpiry", timerEnvelope); err != nil {
			return 0, "", 0, 0, 0, err
		}
		after, err := p.cpu()
		if err != nil {
			return 0, "", 0, 0, 0, err
		}
		s = append(s, (after - before).Seconds())
		want := (n+f.identities)/25 + 1
		if calls := c.Injector.Count(keyvault.Service, keyvault.ListSecrets); calls > want {
			return 0, "", 0, 0, 0, fmt.Errorf("a sweep of %d PATs asked for %d pages of secrets, want %d", n, calls,
				want)
		}
		if calls := c.Injector.Count(devops.ServiceName, devops.ListPats); calls > n/100+f.identities {
			return 0, "", 0, 0, 0, fmt.Errorf("a sweep of %d PATs asked for %d pages of PATs", n, calls)
		}
	}
	now, most, err = p.memory()
	return s.median(), s.spread(), now, most, p.answered, err
}
