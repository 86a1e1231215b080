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

// Whoever reads the portal's page finds every scope, and finds it alone.
func TestEveryScopeIsFoundByEachOfItsNamesInThePortal(t *testing.T) {
	t.Parallel()
	if len(portalNames) != len(table) {
		t.Errorf("%d scopes have names in the portal, want %d", len(portalNames), len(table))
	}
	for _, scope := range names() {
		if len(portalNames[scope]) == 0 {
			t.Errorf("%s has no name in the portal", scope)
		}
		for _, name := range portalNames[scope] {
			v := Check(name)
			if v.Kind != Refused {
				t.Errorf("%q: kind %d, want Refused", name, v.Kind)
			}
			if !slices.Equal(v.Write, []string{scope}) {
				t.Errorf("%q: write %v, want %s", name, v.Write, scope)
			}
		}
	}
}

func FuzzCheckNeverKnowsMoreThanTheTable(f *testing.F) {
	for _, s := range []string{"vso.build", "app_token", "VSO.CODE", "vso.", "vso.x y", "\xff", "Code (Read & write)"} {
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
		for _, scope := range v.Write {
			if !slices.Contains(names(), scope) {
				t.Fatalf("Check(%q): write %q, which is not in the table", s, scope)
			}
		}
	})
}
