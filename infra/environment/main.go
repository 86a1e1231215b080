// Command environment reads infra/environments/<environment>.json, the one file that says
// how an environment is deployed. az and the pipelines take it as it is; this gives it to
// azd and to Terraform, and refuses a deployment that would take the sign-in away.
//
// It knows names of parameters and calls az and azd. It must not know what a parameter
// means: that is main.bicep's.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], outside{getenv: os.Getenv, command: command, infra: "infra", out: os.Stdout})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "environment:", err)
		os.Exit(1)
	}
}

// outside is what the command works with.
type outside struct {
	getenv func(string) string
	// command runs a program and gives what it printed.
	command func(ctx context.Context, name string, args ...string) (string, error)
	infra   string // the folder
	out     io.Writer
}

const usage = `Usage, in the project's folder:
  go run ./infra/environment check <environment>           see that the file can be deployed
  go run ./infra/environment get <environment> <parameter> print one of its values
  go run ./infra/environment terraform <environment>       print it as Terraform's variables
  go run ./infra/environment azd                           give it to azd; azd runs this by itself`

func run(ctx context.Context, args []string, o outside) error {
	switch {
	case len(args) == 2 && args[0] == "check":
		return o.check(ctx, args[1])
	case len(args) == 3 && args[0] == "get":
		return o.get(args[1], args[2])
	case len(args) == 2 && args[0] == "terraform":
		return o.terraform(args[1])
	case len(args) == 1 && args[0] == "azd":
		return o.azd(ctx)
	}
	return errors.New("cannot be called like this\n\n" + usage)
}

// parameters are values by the names that main.bicep has for them.
type parameters map[string]any

// read reads an environment's file. Its error is fs.ErrNotExist if there is none.
func (o outside) read(environment string) (parameters, error) {
	name := filepath.Join(o.infra, "environments", environment+".json")
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var file struct {
		Schema         string `json:"$schema"`
		ContentVersion string `json:"contentVersion"`
		Parameters     map[string]struct {
			Value any `json:"value"`
		} `json:"parameters"`
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return nil, fmt.Errorf("%s is no file of parameters: %w", name, err)
	}
	all := parameters{}
	for p, v := range file.Parameters {
		all[p] = v.Value
	}
	return all, o.fits(name, environment, all)
}

// declaration of a parameter in main.bicep: its name and its type.
var declaration = regexp.MustCompile(`(?m)^param (\w+) (\w+|\{)`)

// fits holds the names in a file against main.bicep.
func (o outside) fits(name, environment string, all parameters) error {
	source, err := os.ReadFile(filepath.Join(o.infra, "main.bicep"))
	if err != nil {
		return err
	}
	declared := map[string]bool{}
	for _, m := range declaration.FindAllSubmatch(source, -1) {
		declared[string(m[1])] = true
	}
	var problems []error
	for _, p := range slices.Sorted(maps.Keys(all)) {
		if !declared[p] {
			problems = append(problems, fmt.Errorf("%s: main.bicep has no parameter %s", name, p))
		}
		if all[p] == nil {
			problems = append(problems, fmt.Errorf("%s: %s has no value", name, p))
		}
	}
	if all["environmentName"] != environment {
		problems = append(problems, fmt.Errorf("%s: environmentName must be %q, as the file is called", name,
			environment))
	}
	if text(all["location"]) == "" {
		problems = append(problems, fmt.Errorf("%s: location is missing: name a region", name))
	}
	return errors.Join(problems...)
}

func (o outside) check(ctx context.Context, environment string) error {
	all, err := o.read(environment)
	if err != nil {
		return err
	}
	if err := o.keepsRegistration(ctx, text(all["entraClientId"])); err != nil {
		return err
	}
	_, err = fmt.Fprintf(o.out, "infra/environments/%s.json can be deployed\n", environment)
	return err
}

// keepsRegistration refuses a deployment after which nobody could sign in: the settings are
// replaced as a whole, and the client id would be gone from the app that has one.
func (o outside) keepsRegistration(ctx context.Context, wanted string) error {
	app, group := o.getenv("PATROL_FUNCTION_APP"), o.getenv("AZURE_RESOURCE_GROUP")
	if wanted != "" || app == "" || group == "" {
		return nil
	}
	current, err := o.command(ctx, "az", "functionapp", "config", "appsettings", "list", "--resource-group", group,
		"--name", app, "--query", "[?name=='ENTRA_CLIENT_ID'].value | [0]", "--output", "tsv")
	switch {
	case err != nil && isNotFound(err.Error()):
		return nil // made by this deployment
	case err != nil:
		return fmt.Errorf("reading ENTRA_CLIENT_ID of %s, to see that it is kept: %w", app, err)
	case strings.TrimSpace(current) == "":
		return nil
	}
	return fmt.Errorf("%s has ENTRA_CLIENT_ID %s and this deployment would empty it: nobody could sign in. "+
		"Give entraClientId that value: in infra/environments, or with azd env set PATROL_ENTRA_CLIENT_ID", app,
		strings.TrimSpace(current))
}

func isNotFound(said string) bool {
	return strings.Contains(said, "ResourceNotFound") || strings.Contains(said, "ResourceGroupNotFound")
}

func (o outside) get(environment, parameter string) error {
	all, err := o.read(environment)
	if err != nil {
		return err
	}
	v, ok := all[parameter]
	if !ok {
		return fmt.Errorf("infra/environments/%s.json does not give %s", environment, parameter)
	}
	_, err = fmt.Fprintln(o.out, text(v))
	return err
}

var humps = regexp.MustCompile(`([a-z])([A-Z])`)

// words gives a parameter's name with its words apart.
func words(parameter string) string {
	return humps.ReplaceAllString(strings.ReplaceAll(parameter, "DevOps", "Devops"), "${1}_${2}")
}

// variable is the name of a parameter in azd's environment.
func variable(parameter string) string {
	switch parameter {
	case "environmentName":
		return "AZURE_ENV_NAME"
	case "location":
		return "AZURE_LOCATION"
	}
	return "PATROL_" + strings.ToUpper(words(parameter))
}

func (o outside) terraform(environment string) error {
	all, err := o.read(environment)
	if err != nil {
		return err
	}
	out := map[string]any{}
	for p, v := range all {
		out[strings.ToLower(words(p))] = v
	}
	e := json.NewEncoder(o.out)
	e.SetIndent("", "  ")
	return e.Encode(out)
}

// azd gives the file's values to azd's environment, from which main.parameters.json takes
// them. What azd alone knows stays, and is told: a pipeline would not know it.
func (o outside) azd(ctx context.Context) error {
	environment := o.getenv("AZURE_ENV_NAME")
	if environment == "" {
		return errors.New("AZURE_ENV_NAME is not set: azd runs this, in one of its environments")
	}
	all, err := o.read(environment)
	if errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(o.out, "There is no infra/environments/%s.json: azd's own values count.\n", environment)
		err = o.keepsRegistration(ctx, o.getenv("PATROL_ENTRA_CLIENT_ID"))
		return errors.Join(err, o.setEmptyMaps(ctx, nil))
	}
	if err != nil {
		return err
	}
	wanted := text(all["entraClientId"])
	if _, given := all["entraClientId"]; !given {
		wanted = o.getenv("PATROL_ENTRA_CLIENT_ID")
	}
	if err := o.keepsRegistration(ctx, wanted); err != nil {
		return err
	}
	for _, p := range slices.Sorted(maps.Keys(all)) {
		if p == "environmentName" {
			continue // azd's own
		}
		if o.getenv(variable(p)) == text(all[p]) {
			continue
		}
		if _, err := o.command(ctx, "azd", "env", "set", "--", variable(p), text(all[p])); err != nil {
			return fmt.Errorf("giving %s to azd: %w", variable(p), err)
		}
	}
	if err := o.setEmptyMaps(ctx, all); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "infra/environments/%s.json: %d values are in azd's environment.\n", environment, len(all))
	o.reportOthers(all)
	return nil
}

// setEmptyMaps gives azd the maps that nobody has given. main.parameters.json cannot: what
// stands behind the equal sign there must have no brace.
func (o outside) setEmptyMaps(ctx context.Context, all parameters) error {
	source, err := os.ReadFile(filepath.Join(o.infra, "main.bicep"))
	if err != nil {
		return err
	}
	for _, m := range declaration.FindAllSubmatch(source, -1) {
		p := string(m[1])
		if _, given := all[p]; given || string(m[2]) != "{" || o.getenv(variable(p)) != "" {
			continue
		}
		if _, err := o.command(ctx, "azd", "env", "set", "--", variable(p), "{}"); err != nil {
			return fmt.Errorf("giving %s to azd: %w", variable(p), err)
		}
	}
	return nil
}

// reportOthers names what azd's environment has and the file has not.
func (o outside) reportOthers(all parameters) {
	source, err := os.ReadFile(filepath.Join(o.infra, "main.bicep"))
	if err != nil {
		return // fits has read it
	}
	for _, m := range declaration.FindAllSubmatch(source, -1) {
		p := string(m[1])
		v := o.getenv(variable(p))
		if _, given := all[p]; !given && v != "" && v != "{}" {
			fmt.Fprintf(o.out, "%s is in azd's environment only: put %s into the file, or a pipeline resets it.\n",
				variable(p), p)
		}
	}
}

// text is a value as an environment variable holds it: lists and maps as JSON.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}

func command(ctx context.Context, name string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}
