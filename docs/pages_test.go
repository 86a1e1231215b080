package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// pages are all pages for people, by their path from the root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, pattern := range []string{"../*.md", "*.md", "adr/*.md", "../infra/terraform/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no pages (%v)", pattern, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			out[filepath.Clean(filepath.Join("docs", f))] = string(b)
		}
	}
	return out
}

// anchors are the fragments of a page's headings, as GitHub makes them.
func anchors(text string) map[string]bool {
	out := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		out[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])] = true
	}
	return out
}

func TestLinksOfThePagesLeadSomewhere(t *testing.T) {
	t.Parallel()
	all := pages(t)
	for name, text := range all {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, fragment, _ := strings.Cut(m[1], "#")
			target := name
			if path != "" {
				target = filepath.Clean(filepath.Join(filepath.Dir(name), path))
			}
			if _, err := os.Stat(filepath.Join("..", target)); err != nil {
				t.Errorf("%s: the link %s leads nowhere", name, m[1])
			} else if fragment != "" && !anchors(all[target])[fragment] {
				t.Errorf("%s: the link %s names a heading that is not there", name, m[1])
			}
		}
	}
}

// A path in backquotes, not a package path or a pattern of names.
var repositoryPath = regexp.MustCompile("`((?:internal|sandbox|events|tests|tools|infra|docs|bench|packaging|" +
	`functions|handler)(?:/[A-Za-z0-9_.-]+)*|[A-Z]+\.md|host\.json)` + "`")

var command = regexp.MustCompile("`(make|go test|go -C [a-z]+ test|go generate) ([^`]+)`")

func TestWhatContributorsAreToldIsThere(t *testing.T) {
	t.Parallel()
	text := pages(t)["CONTRIBUTING.md"]
	found := 0
	for _, m := range repositoryPath.FindAllStringSubmatch(text, -1) {
		found++
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			t.Errorf("CONTRIBUTING.md speaks of %s, which is not there", m[1])
		}
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range command.FindAllStringSubmatch(text, -1) {
		found++
		module := ".."
		if words := strings.Fields(m[1]); slices.Contains(words, "-C") {
			module = filepath.Join("..", words[2])
		}
		for _, word := range strings.Fields(m[2]) {
			switch dir, local := strings.CutPrefix(word, "./"); {
			case local:
				if _, err := os.Stat(filepath.Join(module, dir)); err != nil {
					t.Errorf("CONTRIBUTING.md: %s: there is no package %s", m[0], word)
				}
			case strings.HasPrefix(word, "'^Test"):
				if !isTest(t, strings.Trim(word, "'^$")) {
					t.Errorf("CONTRIBUTING.md: %s: there is no such test", m[0])
				}
			case m[1] == "make" && !strings.Contains(word, "="):
				if !strings.Contains(string(makefile), "\n"+word+":") {
					t.Errorf("CONTRIBUTING.md: %s: the Makefile has no such target", m[0])
				}
			}
		}
	}
	if found < 80 {
		t.Errorf("%d paths and commands were found: this test looks in the wrong place", found)
	}
}

func isTest(t *testing.T, name string) bool {
	t.Helper()
	files, err := filepath.Glob("../sandbox/simulation/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
