package scopes

import (
	"slices"
	"testing"
)

func names() []string {
	var out []string
	for i := range table {
		out = append(out, table[i].name)
	}
	return out
}

func TestTheTableIsSortedAndClosed(t *testing.T) {
	t.Parallel()
	all := names()
	if !slices.IsSorted(all) {
		t.Error("the table is not sorted")
	}
	if once := slices.Compact(slices.Clone(all)); len(once) != len(all) {
		t.Errorf("the table has %d scopes, and %d different ones", len(all), len(once))
	}
	for _, scope := range all {
		v := Check(scope)
		if v.Kind != Known {
			t.Errorf("%s is in the table: kind %d, want Known", scope, v.Kind)
		}
		for _, included := range v.Includes {
			if !slices.Contains(all, included) {
				t.Errorf("%s includes %s, which the table does not have", scope, included)
			}
		}
	}
}

func FuzzCheckNeverKnowsMoreThanTheTable(f *testing.F) {
	for _, s := range []string{"vso.build", "app_token", "VSO.CODE", "vso.", "vso.x y", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v := Check(s)
		if (v.Kind == Known) != slices.Contains(names(), s) {
			t.Fatalf("Check(%q): kind %d", s, v.Kind)
		}
		if v.Kind != Known && v.Reason == "" {
			t.Fatalf("Check(%q) gives no reason", s)
		}
	})
}
