package infra_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	consoleBlock = regexp.MustCompile("(?s)```console\n(.*?)```")
	continued    = regexp.MustCompile(`\\\n\s*`)
	inlineCode   = regexp.MustCompile("`((?:az|azd|gh|go run|make|sh|terraform) [^`]+)`")
	flag         = regexp.MustCompile(`^--?[a-z]`)
	placeholder  = regexp.MustCompile(`<((?:PATROL|AZURE)_[A-Z_]+)>`)
	comment      = regexp.MustCompile(`\s+# .*$`)
)

// commandsOf are the commands that a page tells its reader to type.
func commandsOf(page string) (all []string) {
	page = strings.ReplaceAll(page, "\r", "")
	for _, m := range consoleBlock.FindAllStringSubmatch(page, -1) {
		for _, line := range strings.Split(continued.ReplaceAllString(m[1], " "), "\n") {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				all = append(all, comment.ReplaceAllString(command, ""))
			}
		}
	}
	for _, m := range inlineCode.FindAllStringSubmatch(consoleBlock.ReplaceAllString(page, ""), -1) {
		all = append(all, strings.Join(strings.Fields(m[1]), " "))
	}
	return all
}

// commandsIn are those that a script runs.
func commandsIn(script string) (all []string) {
	for _, m := range regexp.MustCompile(`(?:^|[\s(;|])(az [a-z][^)|;&]*)`).FindAllStringSubmatch(
		continued.ReplaceAllString(script, " "), -1) {
		first, _, _ := strings.Cut(m[1], "\n")
		all = append(all, first)
	}
	return all
}

// wrongCommand holds a command against what is recorded of its program: the words that name
// it, and its flags.
func wrongCommand(command string, recorded map[string][]string) (problems []string) {
	known := ""
	for name := range recorded {
		if (command == name || strings.HasPrefix(command, name+" ")) && len(name) > len(known) {
			known = name
		}
	}
	if known == "" {
		return []string{"there is no such command: " + command}
	}
	for _, word := range strings.Fields(strings.TrimPrefix(command, known)) {
		name, _, _ := strings.Cut(word, "=")
		if flag.MatchString(name) && !slices.Contains(recorded[known], name) {
			problems = append(problems, known+" has no "+name)
		}
	}
	return problems
}

// The pages are walked as a reader walks them, as far as that needs no Azure: every command
// exists and has its flags, every file is there, and every name is an output.
func TestThePagesCanBeFollowed(t *testing.T) {
	t.Parallel()
	recorded := map[string][]string{}
	readJSON(t, "testdata/commands.json", &recorded)
	outputs := regexp.MustCompile(`(?m)^output ([A-Z_]+) `).FindAllStringSubmatch(readFile(t, "main.bicep"), -1)
	isOutput := func(name string) bool {
		return slices.ContainsFunc(outputs, func(m []string) bool { return m[1] == name })
	}
	steps := 0
	for _, page := range []string{"../docs/deploy.md", "../docs/operations.md", "terraform/README.md"} {
		text := readFile(t, page)
		for _, command := range commandsOf(text) {
			steps++
			for _, problem := range wrongCommand(command, recorded) {
				t.Errorf("%s: %s", page, problem)
			}
			for _, word := range strings.Fields(command) {
				_, path, ok := strings.Cut(word, "infra/")
				if !ok || strings.ContainsAny(word, "<{*") {
					continue
				}
				if _, err := os.Stat(filepath.Join("..", "infra", strings.Trim(path, `'"`))); err != nil {
					t.Errorf("%s: %s: %v", page, command, err)
				}
			}
		}
		for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
			if !isOutput(m[1]) {
				t.Errorf("%s names %s, which is no output of the deployment", page, m[1])
			}
		}
	}
	if steps < 40 {
		t.Errorf("only %d commands were found in the pages", steps)
	}
	for _, script := range []string{"entra/register.sh", "environments/upload.sh", "environments/deployed.sh",
		"hooks/next.sh", "../.github/workflows/deploy.yml", "../.azuredevops/azure-pipelines.yml"} {
		for _, command := range commandsIn(readFile(t, script)) {
			for _, problem := range wrongCommand(command, recorded) {
				t.Errorf("%s: %s", script, problem)
			}
		}
	}
}

// The roles are deployed alone with parameters that the page lists.
func TestThePageGivesTheRolesAllTheirParameters(t *testing.T) {
	t.Parallel()
	var given []string
	for _, command := range commandsOf(readFile(t, "../docs/deploy.md")) {
		if strings.Contains(command, "infra/modules/roles.bicep") {
			for _, m := range regexp.MustCompile(`(\w+)=\S+`).FindAllStringSubmatch(command, -1) {
				given = append(given, m[1])
			}
		}
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^param (\w+) `).FindAllStringSubmatch(readFile(t, "modules/roles.bicep"),
		-1) {
		want = append(want, m[1])
	}
	for _, problem := range differences("the page's parameters of roles.bicep", given, want) {
		t.Error(problem)
	}
}

// A runbook that names a code which nobody makes sends its reader nowhere.
func TestTheRunbooksNameCodesThatThereAre(t *testing.T) {
	t.Parallel()
	_, book, _ := strings.Cut(readFile(t, "../docs/operations.md"), "\n### check-incomplete\n")
	book, _, _ = strings.Cut(book, "\n### ")
	known := readFile(t, "../docs/codes.md")
	seen := 0
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*)\\|").FindAllStringSubmatch(book, -1) {
		for _, code := range regexp.MustCompile("`([a-z]+(?:-[a-z]+)+)`").FindAllStringSubmatch(row[1], -1) {
			seen++
			if !strings.Contains(known, "`"+code[1]+"`") {
				t.Errorf("the runbook of check-incomplete names %s, which is no code", code[1])
			}
		}
	}
	if seen < 5 {
		t.Errorf("only %d codes were found in the runbook", seen)
	}
}

func TestACommandThatDoesNotExistIsFound(t *testing.T) {
	t.Parallel()
	recorded := map[string][]string{"az keyvault recover": {"--name"}}
	for command, want := range map[string]string{
		"az keyvault restore --name x":       "there is no such command",
		"az keyvault recover --vault-name x": "az keyvault recover has no --vault-name",
	} {
		if got := strings.Join(wrongCommand(command, recorded), "\n"); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}
