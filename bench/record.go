package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

//go:embed recorded.json
var recordedJSON []byte

// counters are what patrol costs in things that can be counted: they are the same on
// every machine.
type counters struct {
	// Calls upstream by phase and operation.
	Calls map[string]map[string]int `json:"calls"`
	// RoundTrips are calls one after another.
	RoundTrips map[string]int `json:"roundTrips"`
	// Allocations are a ceiling: fewer are welcome.
	Allocations map[string]int `json:"allocations"`
}

func recorded() (counters, error) {
	var c counters
	if err := json.Unmarshal(recordedJSON, &c); err != nil {
		return counters{}, fmt.Errorf("reading bench/recorded.json: %w", err)
	}
	return c, nil
}

// compare says what is not as recorded, in order. Calls and round trips must be equal,
// allocations not more. A part that was not measured, nil, is passed over.
func compare(want, got counters) (problems []string) {
	exact := func(what string, want, got map[string]int) {
		for _, k := range keys(want, got) {
			if w, g := want[k], got[k]; w != g {
				problems = append(problems, fmt.Sprintf("%s: %s: %d, recorded are %d", what, k, g, w))
			}
		}
	}
	if got.Calls != nil {
		for _, phase := range keys(want.Calls, got.Calls) {
			exact("upstream calls of "+phase, want.Calls[phase], got.Calls[phase])
		}
	}
	if got.RoundTrips != nil {
		exact("round trips", want.RoundTrips, got.RoundTrips)
	}
	if got.Allocations != nil {
		for _, k := range keys(want.Allocations, got.Allocations) {
			switch w, ok := want.Allocations[k]; {
			case !ok:
				problems = append(problems, fmt.Sprintf("allocations: %s: none are recorded", k))
			case got.Allocations[k] > w:
				problems = append(problems, fmt.Sprintf("allocations: %s: %d, recorded are %d", k, got.Allocations[k],
					w))
			}
		}
	}
	return problems
}

func keys[V any](a, b map[string]V) []string {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]V{}
	}
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}
