package docs_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/internal/codes"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// notOfACheck are codes of the services that no check meets: it lists and compares, and
// makes, stores, extends and revokes nothing.
var notOfACheck = []string{
	"still-active", "batch-size", "bad-rule", // of revocations
	"vault-disabled", "vault-unsettled", "vault-tags", "vault-name", "vault-value", "vault-version", // of a value
	"inactivity", "user-renamed", // warnings
	"nonce-mismatch", "callback", "refused", // of a sign-in that is under way
}

// ofAnOperation are Azure DevOps' words for why a PAT was not made, extended or revoked.
var ofAnOperation = regexp.MustCompile(`^[a-z]+[A-Z]|^<patTokenError>$`)

// codesOfChecks are those that patrol.check.incomplete can have.
func codesOfChecks() []string {
	out := []string{rotation.MassChangeWaits, rotation.ValuesRefused, rotation.Unexpected}
	observed := []string{"Azure DevOps", "Sign-in and Entra", "Key Vault", "State blobs"}
	for _, g := range codes.Table() {
		for _, e := range g.Entries {
			for _, c := range e.Codes {
				isBus := strings.HasPrefix(c, "service-bus") || c == "message-too-large"
				isOther := slices.Contains(notOfACheck, c) || ofAnOperation.MatchString(c)
				if isBus || slices.Contains(observed, g.Title) && !isOther {
					out = append(out, c)
				}
			}
		}
	}
	return out
}

func TestEveryCodeOfAnIncompleteCheckHasARowThatSaysWhoDoesWhat(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "\n### check-incomplete\n")
	section, _, _ = strings.Cut(section, "\n### ")
	rows := map[string]int{}
	for line := range strings.SplitSeq(section, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.Contains(cells[1], "`") || strings.TrimSpace(cells[1]) == "`code`" {
			continue
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
			rows[m[1]]++
		}
		for i, what := range map[int]string{2: "what it means", 3: "who does what next"} {
			if strings.TrimSpace(cells[i]) == "" {
				t.Errorf("%s: the row does not say %s", strings.TrimSpace(cells[1]), what)
			}
		}
	}
	known := codesOfChecks()
	for _, c := range known {
		if rows[c] != 1 {
			t.Errorf("operations.md has %d rows for the code %s of patrol.check.incomplete, want one", rows[c], c)
		}
	}
	for _, c := range slices.Sorted(maps.Keys(rows)) {
		if !slices.Contains(known, c) {
			t.Errorf("operations.md has a row for %s, which is no code of patrol.check.incomplete", c)
		}
	}
}
