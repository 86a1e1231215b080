package app_test

import (
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// azure is a complete environment as infrastructure sets it.
func azure() map[string]string {
	return map[string]string{
		"KEY_VAULT_URL": "https://contoso.vault.azure.net/",
		"ServiceBusConnection__fullyQualifiedNamespace": "contoso.servicebus.windows.net",
		"ServiceBusConnection__credential":              "managedidentity",
		"ServiceBusConnection__clientId":                "11111111-1111-1111-1111-111111111111",
		"COMMAND_QUEUE":                                 "pat-commands",
		"VAULT_EVENT_QUEUE":                             "vault-events",
		"EVENT_TOPIC":                                   "pat-events",
		"CHECK_SCHEDULE":                                "0 0 */6 * * *",
		"AZURE_CLIENT_ID":                               "11111111-1111-1111-1111-111111111111",
		"ENTRA_TENANT_ID":                               "22222222-2222-2222-2222-222222222222",
		"ENTRA_CLIENT_ID":                               "33333333-3333-3333-3333-333333333333",
		"WEBSITE_HOSTNAME":                              "contoso-patrol.azurewebsites.net",
	}
}

func read(env map[string]string) (app.Settings, error) {
	return app.ReadSettings(func(name string) string { return env[name] })
}

func TestACompleteEnvironmentIsReadWithItsDefaults(t *testing.T) {
	t.Parallel()
	s, err := read(azure())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, got, want string }{
		{"vault", s.Vault.String(), "https://contoso.vault.azure.net"},
		{"vault host", s.Vault.Host, "contoso.vault.azure.net"},
		{"authority", s.Authority.String(), "https://login.microsoftonline.com"},
		{"devops", s.DevOps.String(), "https://dev.azure.com"},
		{"vssps", s.VSSPS.String(), "https://vssps.dev.azure.com"},
		{"public", s.Public.String(), "https://contoso-patrol.azurewebsites.net"},
		{"manifest", s.Manifest, "pats.yaml"},
		{"client credential", s.ClientCredential, "managed-identity"},
		{"namespace", s.BusNamespace, "contoso.servicebus.windows.net"},
	} {
		if c.got != c.want {
			t.Errorf("%s is %q, want %q", c.what, c.got, c.want)
		}
	}
	if s.Local || s.LogLevel != slog.LevelInfo {
		t.Errorf("local %t, log level %s; want false and INFO", s.Local, s.LogLevel)
	}
}

func TestAnAddressThatIsTypedAnewIsTheSameOne(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"https://contoso.vault.azure.net", "https://contoso.vault.azure.net/", "https://contoso.vault.azure.net//",
		"https://Contoso.Vault.Azure.NET", "HTTPS://CONTOSO.VAULT.AZURE.NET/", "https://contoso.vault.azure.net:443",
		"https://contoso.vault.azure.net:443/", "https://contoso.vault.azure.net.",
		" https://contoso.vault.azure.net/ ",
		"https://contoso.vault.azure.net:/", "https://contoso.vault.azure.net/?", "https://contoso.vault.azure.net/#",
	} {
		env := azure()
		env["KEY_VAULT_URL"] = address
		s, err := read(env)
		if err != nil {
			t.Errorf("%q: %v", address, err)
			continue
		}
		if got, want := s.Vault.String(), "https://contoso.vault.azure.net"; got != want {
			t.Errorf("%q is %s, want %s", address, got, want)
		}
		if got, want := rotation.VaultTag(s.Vault.Host), rotation.VaultTag("contoso.vault.azure.net"); got != want {
			t.Errorf("%q: vault tag %s, want %s", address, got, want)
		}
	}
}

func TestAnAddressKeepsWhatSetsItApart(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"https://127.0.0.1:8443/":         "https://127.0.0.1:8443",
		"https://[::1]:8443":              "https://[::1]:8443",
		"https://[::1]:443":               "https://[::1]",
		"http://localhost:80":             "http://localhost",
		"http://localhost:443":            "http://localhost:443",
		"https://DevOps.localhost/Tfs/X/": "https://devops.localhost/Tfs/X",
		"https://devops.localhost/a%2Fb":  "https://devops.localhost/a%2Fb",
	} {
		env := azure()
		env["AZURE_DEVOPS_URL"] = address
		s, err := read(env)
		if err != nil {
			t.Errorf("%q: %v", address, err)
			continue
		}
		if got := s.DevOps.String(); got != want {
			t.Errorf("%q is %s, want %s", address, got, want)
		}
	}
}

func TestEveryMissingSettingIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := read(nil)
	var e *app.SettingsError
	if !errors.As(err, &e) {
		t.Fatalf("error is %v, want a *SettingsError", err)
	}
	for _, name := range []string{"KEY_VAULT_URL", "COMMAND_QUEUE", "VAULT_EVENT_QUEUE", "EVENT_TOPIC",
		"ENTRA_TENANT_ID", "ENTRA_CLIENT_ID",
		"CHECK_SCHEDULE", "AZURE_CLIENT_ID", "ServiceBusConnection__fullyQualifiedNamespace"} {
		if !strings.Contains(err.Error(), name+" is not set: give it ") {
			t.Errorf("nothing is said about %s in: %s", name, err)
		}
	}
	if len(e.Problems) != 9 {
		t.Errorf("%d problems, want 9: %q", len(e.Problems), e.Problems)
	}
}

func TestAWrongSettingIsSaidWithWhatToDo(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		set  map[string]string
		want string // in the error; empty: accepted
	}{
		{"plain http to Azure", map[string]string{"KEY_VAULT_URL": "http://contoso.vault.azure.net"},
			"KEY_VAULT_URL must begin with https://"},
		{"no URL", map[string]string{"AZURE_DEVOPS_URL": "dev.azure.com"},
			"AZURE_DEVOPS_URL is not a URL: write it like https://dev.azure.com"},
		{"a URL with a key", map[string]string{"PUBLIC_URL": "https://x.example?code=c4n4ry"},
			"PUBLIC_URL must be a plain URL"},
		{"another cloud", map[string]string{"AZURE_AUTHORITY_HOST": "https://Login.MicrosoftOnline.us/"}, ""},
		{"China", map[string]string{"AZURE_AUTHORITY_HOST": "https://login.chinacloudapi.cn"}, ""},
		{"a cloud that nobody knows", map[string]string{"AZURE_AUTHORITY_HOST": "https://login.microsoftonline.eaglex"},
			"AZURE_AUTHORITY_HOST is no cloud whose token exchange patrol knows"},
		{"a cloud that nobody knows, with a certificate", map[string]string{"ENTRA_CERTIFICATE": "app",
			"AZURE_AUTHORITY_HOST":    "https://login.microsoftonline.eaglex",
			"ENTRA_CLIENT_CREDENTIAL": "certificate"}, ""},
		{"five fields of cron", map[string]string{"CHECK_SCHEDULE": "0 */6 * * *"},
			"CHECK_SCHEDULE has 5 fields and needs six"},
		{"unknown credential", map[string]string{"ENTRA_CLIENT_CREDENTIAL": "secret"},
			"ENTRA_CLIENT_CREDENTIAL must be managed-identity, certificate or none"},
		{"certificate without a name", map[string]string{"ENTRA_CLIENT_CREDENTIAL": "certificate"},
			"ENTRA_CERTIFICATE is not set"},
		{"public client", map[string]string{"ENTRA_CLIENT_CREDENTIAL": "none", "AZURE_CLIENT_ID": ""}, ""},
		{"transport", map[string]string{"SERVICE_BUS_TRANSPORT": "mqtt"},
			"SERVICE_BUS_TRANSPORT must be amqp (port 5671) or websockets (port 443)"},
		{"log level", map[string]string{"LOG_LEVEL": "loud"}, "LOG_LEVEL must be debug, info, warn or error"},
		{"namespace as URL",
			map[string]string{"ServiceBusConnection__fullyQualifiedNamespace": "sb://contoso.servicebus.windows.net/"},
			"must be a host name only"},
		{"other bus credential", map[string]string{"ServiceBusConnection__credential": "clientsecret"},
			"ServiceBusConnection__credential must be managedidentity"},
		{"connection string instead", map[string]string{"ServiceBusConnection__fullyQualifiedNamespace": "",
			"ServiceBusConnection": "Endpoint=sb://127.0.0.1;UseDevelopmentEmulator=true"}, ""},
		{"local with Azure's addresses", map[string]string{"PATROL_LOCAL": "true"},
			"PATROL_LOCAL is for a stack on this machine only, and KEY_VAULT_URL points elsewhere"},
		{"local misspelt", map[string]string{"PATROL_LOCAL": "yes"}, "PATROL_LOCAL must be true or false"},
		{"local", map[string]string{"PATROL_LOCAL": "true", "KEY_VAULT_URL": "https://127.0.0.1:8443",
			"AZURE_AUTHORITY_HOST": "https://[::1]:1", "AZURE_DEVOPS_URL": "https://devops.localhost:2",
			"AZURE_DEVOPS_VSSPS_URL": "https://localhost", "PUBLIC_URL": "http://127.0.0.1:7071",
			"ServiceBusConnection__fullyQualifiedNamespace": "localhost:5671"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			env := azure()
			maps.Copy(env, tc.set)
			_, err := read(env)
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want it to contain %q", err, tc.want)
			case err != nil && strings.Contains(err.Error(), "c4n4ry"):
				t.Errorf("the value of a setting shows: %v", err)
			}
		})
	}
}

func TestALogLevelMayBeSpelledAsTheHostSpellsIt(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]slog.Level{
		"Information": slog.LevelInfo, "INFO": slog.LevelInfo, "info": slog.LevelInfo, "": slog.LevelInfo,
		"Trace": slog.LevelDebug, "Verbose": slog.LevelDebug, "Debug": slog.LevelDebug, "Warning": slog.LevelWarn,
		"warn": slog.LevelWarn, "Error": slog.LevelError, "Critical": slog.LevelError, "None": slog.LevelError,
		"INFO+2": slog.LevelInfo + 2,
	} {
		env := azure()
		env["LOG_LEVEL"] = text
		s, err := read(env)
		if err != nil {
			t.Errorf("LOG_LEVEL=%s: %v", text, err)
		}
		if s.LogLevel != want {
			t.Errorf("LOG_LEVEL=%s is %s, want %s", text, s.LogLevel, want)
		}
	}
}

func TestTheBusIsFoundWhereverTheHostFindsIt(t *testing.T) {
	t.Parallel()
	const namespace = "other.servicebus.windows.net"
	for _, name := range []string{
		"ServiceBusConnection__fullyQualifiedNamespace", "ServiceBusConnection__FullyQualifiedNamespace",
		"ServiceBusConnection__fullyqualifiednamespace", "SERVICEBUSCONNECTION__FULLYQUALIFIEDNAMESPACE",
		"ServiceBusConnection:fullyQualifiedNamespace", "AzureWebJobsServiceBusConnection__fullyQualifiedNamespace",
		"ConnectionStrings__ServiceBusConnection__fullyQualifiedNamespace",
		"servicebusconnection__fullyQualifiedNamespace",
	} {
		var environ []string
		for k, v := range azure() {
			if k != "ServiceBusConnection__fullyQualifiedNamespace" {
				environ = append(environ, k+"="+v)
			}
		}
		s, err := app.ReadSettings(app.Environment(append(environ, name+"="+namespace)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s.BusNamespace != namespace {
			t.Errorf("%s: namespace %q, want %q", name, s.BusNamespace, namespace)
		}
	}
	for _, name := range []string{"ServiceBusConnection", "AzureWebJobsServiceBusConnection",
		"ConnectionStrings__ServiceBusConnection", "CUSTOMCONNSTR_ServiceBusConnection"} {
		env := azure()
		env[name] = "Endpoint=sb://x"
		s, err := read(env)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if s.BusConnectionString != "Endpoint=sb://x" {
			t.Errorf("%s: connection string %q", name, s.BusConnectionString)
		}
	}
}

func TestAReferenceThatIsNotResolvedIsNoValue(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ENTRA_CLIENT_ID", "COMMAND_QUEUE", "ServiceBusConnection", "KEY_VAULT_URL",
		"PATROL_MANIFEST", "PUBLIC_URL", "ServiceBusConnection__fullyQualifiedNamespace"} {
		env := azure()
		env[name] = "@Microsoft.KeyVault(SecretUri=https://contoso.vault.azure.net/secrets/c4n4ry)"
		_, err := read(env)
		if err == nil || !strings.Contains(err.Error(), name+" is a reference that App Service has not resolved") {
			t.Errorf("%s: error %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "c4n4ry") {
			t.Errorf("%s: the error has the value: %v", name, err)
		}
	}
}

func TestAnIdIsAGUIDAndTheRightOne(t *testing.T) {
	t.Parallel()
	env := azure()
	for _, c := range []struct{ name, value, want string }{
		{"ENTRA_CLIENT_ID", "patrol", "ENTRA_CLIENT_ID must be an id like"},
		{"ENTRA_CLIENT_ID", "{33333333-3333-3333-3333-333333333333}", "without braces"},
		{"ENTRA_CLIENT_ID", "00000000-0000-0000-0000-000000000000", "ENTRA_CLIENT_ID must be an id like"},
		{"ENTRA_CLIENT_ID", "33333333-3333-3333-3333-33333333333", "ENTRA_CLIENT_ID must be an id like"},
		{"ENTRA_CLIENT_ID", env["AZURE_CLIENT_ID"], "ENTRA_CLIENT_ID is the managed identity's client id"},
		{"ENTRA_CLIENT_ID", env["ENTRA_TENANT_ID"], "ENTRA_CLIENT_ID is the tenant's id"},
		{"ENTRA_TENANT_ID", "contoso", "ENTRA_TENANT_ID must be an id like"},
		{"AZURE_CLIENT_ID", "id-patrol", "AZURE_CLIENT_ID must be an id like"},
		{"ServiceBusConnection__clientId", "id-patrol", "ServiceBusConnection__clientId must be an id like"},
	} {
		env := azure()
		env[c.name] = c.value
		_, err := read(env)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%s: error %v, want it to contain %q", c.name, c.value, err, c.want)
		}
	}
}

func TestThePublicURLHasOneForm(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"https://patrol.example": "https://patrol.example", "https://patrol.example/": "https://patrol.example",
		"https://Patrol.Example:443//": "https://patrol.example", "https://patrol.example.": "https://patrol.example",
	} {
		env := azure()
		env["PUBLIC_URL"] = address
		s, err := read(env)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if got := s.Public.String(); got != want {
			t.Errorf("%s is %s, want %s", address, got, want)
		}
	}
	for _, address := range []string{"https://patrol.example/patrol", "https://patrol.example/api/", "https://x/%2F"} {
		env := azure()
		env["PUBLIC_URL"] = address
		if _, err := read(env); err == nil || !strings.Contains(err.Error(), "PUBLIC_URL must have no path") {
			t.Errorf("%s: error %v", address, err)
		}
	}
}

func TestAppServiceAuthenticationIsOnIfThePlatformSaysSo(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{"": false, "True": true, "true": true, "TRUE": true, "False": false,
		"1": false} {
		env := azure()
		env["WEBSITE_AUTH_ENABLED"] = text
		s, err := read(env)
		if err != nil {
			t.Fatal(err)
		}
		if s.Authenticated != want {
			t.Errorf("WEBSITE_AUTH_ENABLED=%s: %t, want %t", text, s.Authenticated, want)
		}
	}
}
