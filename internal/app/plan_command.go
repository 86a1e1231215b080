package app

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/azure-patrol/patrol/internal/devops"
	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/manifest"
	"github.com/azure-patrol/patrol/internal/reconcile"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/vault"
	"github.com/azure-patrol/patrol/internal/web"
)

const planUsage = `Usage: handler plan [flags] [pats.yaml]

Shows what a sweep with this manifest would do: what it would create, rotate,
revoke, adopt and release, and why. It changes nothing and stores nothing.
Without a file it takes PATROL_MANIFEST, by default pats.yaml.

Your own Azure sign-in (az login) must be allowed to read the vault's secrets (Key
Vault Secrets User): the identities' sign-ins there list their PATs. With Key Vault
Reader, or where the app alone can use a sign-in, the plan rests on the vault's tags
alone, and says so.

Settings, from the environment: KEY_VAULT_URL, ENTRA_TENANT_ID, ENTRA_CLIENT_ID,
ENTRA_CLIENT_CREDENTIAL, ENTRA_CERTIFICATE, PATROL_MANIFEST, AZURE_AUTHORITY_HOST,
AZURE_DEVOPS_URL, AZURE_DEVOPS_VSSPS_URL. With -offline only PATROL_MANIFEST.

Exit code 0: a plan, with changes or without. 1: it failed, or something could not
be read. 2: the command line or the manifest can't be used.

Flags:
`

// codeNotListed is a PAT list that cannot be read from an operator's machine.
const codeNotListed = "not-listed"

// Plan is the command that shows what a sweep with a manifest would do.
func Plan(ctx context.Context, args []string, p Process) error {
	flags := flag.NewFlagSet("plan", flag.ContinueOnError)
	format := flags.String("format", "text", "print the plan as `text`, json or markdown")
	offline := flags.Bool("offline", false, "check the manifest and show each PAT's schedule, without any call")
	if err := parse(flags, args, planUsage); err != nil {
		return err
	}
	if flags.NArg() > 1 {
		return &usageError{text: "name one manifest, after the flags, as in: handler plan -format markdown pats.yaml"}
	}
	if !slices.Contains([]string{"text", "json", "markdown"}, *format) {
		return &usageError{text: fmt.Sprintf("-format must be text, json or markdown, not %q", *format)}
	}
	path := flags.Arg(0)
	if path == "" {
		path = (&reader{getenv: p.Getenv}).text("PATROL_MANIFEST", "pats.yaml")
	}
	m, warnings, err := manifest.Read(path)
	if err != nil {
		return &usageError{text: "the manifest can't be used:\n" + strings.Join(problems(err), "\n")}
	}
	for _, w := range warnings {
		fmt.Fprintln(p.Err, "warning: "+w.String())
	}
	for _, r := range refused(m) {
		fmt.Fprintln(p.Err, "refused: "+r)
	}
	if *offline {
		return writeSchedule(p.Out, *format, path, m)
	}
	s, err := readPlanSettings(p.Getenv)
	if err != nil {
		return errors.New(strings.Join(problems(err), "\n  "))
	}
	p.Outside.fill()
	report, unread, err := planAsOperator(ctx, s, m, p)
	if err != nil {
		return err
	}
	if err := writePlan(p.Out, *format, path, report); err != nil {
		return fmt.Errorf("writing the plan: %w", err)
	}
	if unread > 0 {
		return fmt.Errorf("the plan is not complete: %d of its sources could not be read, see its problems", unread)
	}
	return nil
}

// readPlanSettings reads the settings that reading needs, and no others.
func readPlanSettings(getenv func(string) string) (Settings, error) {
	r := &reader{getenv: getenv}
	s := Settings{
		Vault: r.url("KEY_VAULT_URL",
			r.required("KEY_VAULT_URL", "the vault's address, like https://contoso.vault.azure.net"),
			"https://contoso.vault.azure.net"),
		Authority: r.url("AZURE_AUTHORITY_HOST", r.text("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com"),
			"https://login.microsoftonline.com"),
		DevOps: r.url("AZURE_DEVOPS_URL", r.text("AZURE_DEVOPS_URL", "https://dev.azure.com"),
			"https://dev.azure.com"),
		VSSPS: r.url("AZURE_DEVOPS_VSSPS_URL", r.text("AZURE_DEVOPS_VSSPS_URL", "https://vssps.dev.azure.com"),
			"https://vssps.dev.azure.com"),

		Tenant:           r.required("ENTRA_TENANT_ID", "the id of the tenant"),
		ClientID:         r.required("ENTRA_CLIENT_ID", "the id of the app registration that people sign in to"),
		ClientCredential: strings.ToLower(r.text("ENTRA_CLIENT_CREDENTIAL", "managed-identity")),
		Certificate:      r.text("ENTRA_CERTIFICATE", ""),
	}
	switch s.ClientCredential {
	case "managed-identity", "none":
	case "certificate":
		if s.Certificate == "" {
			r.wrong("ENTRA_CERTIFICATE", "is not set: give it the name of the certificate in Key Vault")
		}
	default:
		r.wrong("ENTRA_CLIENT_CREDENTIAL", "must be managed-identity, certificate or none")
	}
	r.local(&s)
	r.exchange(s)
	if len(r.problems) > 0 {
		return s, &SettingsError{r.problems}
	}
	return s, nil
}

// planAsOperator makes the plan of a sweep with an operator's rights, and changes
// nothing. unread counts what could not be read for another reason than that nobody has
// signed in yet, or that an operator can't: of these two the plan itself speaks.
func planAsOperator(ctx context.Context, s Settings, m *manifest.Manifest,
	p Process) (report web.PlanReport, unread int, err error) {
	o := p.Outside
	client := &http.Client{Transport: o.Transport}
	options := azcore.ClientOptions{Transport: client, Retry: o.Retry.HTTP}
	options.Telemetry.ApplicationID = telemetryID(p.Version)
	cred := p.Credential
	if cred == nil {
		c, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: options,
			DisableInstanceDiscovery: s.Local})
		if err != nil {
			return report, 0, errors.New("there is no Azure sign-in on this machine: run az login")
		}
		cred = c
	}
	v, err := vault.New(vault.Config{URL: s.Vault.String(), Credential: cred, ClientOptions: options,
		DisableChallengeResourceVerification: s.Local, Log: o.Log, Now: o.Now})
	if err != nil {
		return report, 0, err
	}
	secrets, err := readSecrets(ctx, v)
	if err != nil {
		return report, 0, explainVault(err)
	}
	signIns, err := readerClient(ctx, s, m, v, client, o)
	if err != nil {
		return report, 0, err
	}
	tokens, err := devops.New(devops.Config{
		URL: s.DevOps.String(), VSSPSURL: s.VSSPS.String(), ClientOptions: options, Version: p.Version, Now: o.Now,
		Log:        o.Log,
		Credential: func(identity string) (azcore.TokenCredential, error) { return signIns.Credential(identity), nil },
	})
	if err != nil {
		return report, 0, err
	}
	providers := s.DevOps.String() + "/"
	lists := &lists{tokens: tokens, manifest: m, secrets: secrets, now: o.Now, unlisted: map[string]string{},
		address: func(organization string) string { return providers + organization }}
	reconciler := reconcile.NewReconciler(reconcile.Config{
		Spec: m.PAT, Specs: func() []rotation.Spec { return m.PATs }, Refused: m.RefusedPATs(),
		Vault: secrets, Tokens: lists, // Outbox and Identities are a sweep's: Plan sends nothing
		DefaultOverlap:  m.Overlap,
		VaultTag:        rotation.VaultTag(s.Vault.Host),
		ProviderAddress: lists.address,
		Organization: func(address string) string {
			if len(address) > len(providers) && strings.EqualFold(address[:len(providers)], providers) {
				return address[len(providers):]
			}
			return ""
		},
		Now: o.Now, Wait: o.Wait, Random: o.Random, Log: o.Log,
	})
	plan := reconciler.Plan(ctx)
	if err := ctx.Err(); err != nil {
		return report, 0, errors.New("interrupted: there is no plan")
	}
	for _, q := range plan.Problems {
		if e := rotation.AsError(q.Err); e == nil || e.Code != string(entra.NotSignedIn) {
			unread++
		}
	}
	lists.withdrawUnlisted(&plan)
	return web.Report(reconciler, plan), unread, nil
}

// explainVault speaks to an operator, where the vault's failures speak of the app.
func explainVault(err error) error {
	e := rotation.AsError(err)
	if e == nil {
		return err
	}
	switch e.Code {
	case rotation.VaultForbidden:
		return fmt.Errorf("the vault refuses your Azure sign-in: it needs the role Key Vault Secrets User on the "+
			"vault, or Key Vault Reader for a plan from the vault's tags alone (%s)", e.Code)
	case rotation.VaultUnauthorized:
		return fmt.Errorf("the vault does not accept your Azure sign-in: "+
			"sign in to the vault's own tenant, az login --tenant (%s)", e.Code)
	case rotation.VaultCredential:
		return fmt.Errorf("there is no token for the vault: run az login, and check KEY_VAULT_URL (%s)", e.Code)
	}
	return fmt.Errorf("the vault can't be read: %w", err)
}

// secrets is the vault as it was when the command began, with what a plan asks for
// beside: the versions of a secret, and those that were deleted. Whatever else a Vault can
// do is not there: a plan has no way to write.
type secrets struct {
	rotation.Vault
	read     *vault.Vault
	versions []rotation.Version
	names    map[string]bool // in lower case
}

func readSecrets(ctx context.Context, v *vault.Vault) (*secrets, error) {
	out := &secrets{read: v, names: map[string]bool{}}
	for version, err := range v.Secrets(ctx) {
		if err != nil {
			return nil, err
		}
		out.versions = append(out.versions, version)
		out.names[strings.ToLower(version.Name)] = true
	}
	return out, nil
}

func (s *secrets) Secrets(context.Context) iter.Seq2[rotation.Version, error] {
	return func(yield func(rotation.Version, error) bool) {
		for _, v := range s.versions {
			if !yield(v, nil) {
				return
			}
		}
	}
}

func (s *secrets) Versions(ctx context.Context, name string) ([]rotation.Version, error) {
	return s.read.Versions(ctx, name)
}

func (s *secrets) Deleted(ctx context.Context) iter.Seq2[rotation.Version, error] {
	return s.read.Deleted(ctx)
}

// errReadOnly refuses what a sign-in client wants to write.
var errReadOnly = errors.New("a plan stores nothing")

// readOnlyStore gives the identities' sign-ins to read. The refresh token that Entra sends
// with each access token is dropped: Entra leaves the one before it valid until its own
// end, so that the app goes on with what the vault has. An authority that ends the old
// one at once would end the app's sign-in by a plan; Entra does so for single page apps
// only.
type readOnlyStore struct{ signIns *vault.Store }

func (s readOnlyStore) Read(ctx context.Context, name string) (value rotation.Secret, tags map[string]string,
	version string, created time.Time, err error) {
	return s.signIns.Read(ctx, name)
}

func (readOnlyStore) Write(context.Context, string, rotation.Secret, string, map[string]string,
	time.Time) (version string, created time.Time, err error) {
	return "", time.Time{}, errReadOnly
}

func (readOnlyStore) Tag(context.Context, string, string, map[string]string) error {
	return errReadOnly
}

// noManagedIdentity stands for the app's managed identity, which no other machine has. A
// sign-in that was made on a command line needs none, and can be used.
type noManagedIdentity struct{}

func (noManagedIdentity) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{}, errors.New("the managed identity is the app's")
}

// readerClient is the sign-in client without a way to write or to notify.
func readerClient(ctx context.Context, s Settings, m *manifest.Manifest, v *vault.Vault, client *http.Client,
	o Outside) (*entra.Client, error) {
	c := signInConfig(s, m, readOnlyStore{vault.NewStore(v)}, client, o)
	c.Notify = func(context.Context, rotation.Event) error { return errAppNotifies }
	switch s.ClientCredential {
	case "managed-identity":
		c.Credential.ManagedIdentity = noManagedIdentity{}
	case "certificate":
		certs, key, err := certificate(vault.NewStore(v), s.Certificate)(ctx)
		if e := rotation.AsError(err); e != nil && e.Code == rotation.VaultForbidden {
			c.Credential.ManagedIdentity = noManagedIdentity{}
			break
		}
		if err != nil {
			return nil, err
		}
		c.Credential.Certificate = func(context.Context) ([]*x509.Certificate, crypto.PrivateKey, error) {
			return certs, key, nil
		}
	}
	return entra.New(c)
}

// lists gives the PATs of owners. Where an operator can't list an identity's, it gives
// those that the vault names, as the vault has them, and remembers that.
type lists struct {
	rotation.Tokens // nothing but List is there
	tokens          *devops.Client
	manifest        *manifest.Manifest
	secrets         *secrets
	address         func(organization string) string
	now             func() time.Time

	mu       sync.Mutex
	unlisted map[string]string // why, by identity
}

func (l *lists) List(ctx context.Context, o rotation.Owner) ([]rotation.PAT, error) {
	// To whoever may read no values, a missing sign-in and a refused one are alike;
	// the list of secrets knows which it is.
	if !l.secrets.names[strings.ToLower(entra.SecretName(o.Identity))] {
		return nil, &rotation.Error{Class: rotation.SignIn, Code: entra.CodeNotSignedIn,
			Message: "nobody has signed in as " + l.manifest.Identities[o.Identity].User}
	}
	pats, err := l.tokens.List(ctx, o)
	e := rotation.AsError(err)
	if e == nil {
		return pats, err
	}
	var why string
	switch e.Code {
	case entra.CodeManagedIdentity:
		why = "the app alone can use its sign-in"
	case rotation.VaultForbidden:
		why = "the vault does not let you read its sign-in"
	default:
		return nil, err
	}
	l.mu.Lock()
	l.unlisted[o.Identity] = why
	l.mu.Unlock()
	return l.named(o), nil
}

// named are the owner's PATs that the vault names and that have not run out. Their
// scopes are not in the vault: the manifest's stand in.
func (l *lists) named(o rotation.Owner) []rotation.PAT {
	var out []rotation.PAT
	for _, v := range l.secrets.versions {
		ofOwner := v.Ledger.Identity == o.Identity &&
			strings.EqualFold(v.Ledger.ProviderAddress, l.address(o.Organization))
		ended := !v.Expires.IsZero() && !v.Expires.After(l.now())
		if v.Ledger.AuthorizationID == "" || !ofOwner || ended {
			continue
		}
		p := rotation.PAT{AuthorizationID: v.Ledger.AuthorizationID, ValidFrom: v.Created, ValidTo: v.Expires}
		if s, ok := l.manifest.PAT(v.Name); ok {
			p.Scopes = s.Scopes
		}
		out = append(out, p)
	}
	return out
}

// withdrawUnlisted withdraws what a plan says of identities whose PATs could not be
// listed, as far as only Azure DevOps knows it.
func (l *lists) withdrawUnlisted(plan *rotation.Plan) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range plan.Items {
		it := &plan.Items[i]
		why, ok := l.unlisted[it.Spec.Identity]
		waitsForSignIn := it.State == rotation.StateBlocked && it.Decision.Action == rotation.ReportSignIn
		if !ok || waitsForSignIn {
			continue
		}
		switch d := it.Decision; {
		case d.Rule == "adoption", d.Action == rotation.Revoke:
			// Which PAT a secret of others holds, and whether a replaced PAT is
			// still alive, is in the list alone.
			it.Decision = rotation.Decision{}
		case d.Action != rotation.Nothing:
			continue
		}
		it.State, it.Err = rotation.StateUnknown, notListed(why)
	}
	for _, identity := range slices.Sorted(maps.Keys(l.unlisted)) {
		plan.Problems = append(plan.Problems, rotation.Unobserved{
			Identity: identity, Err: notListed(l.unlisted[identity]),
		})
	}
}

func notListed(why string) *rotation.Error {
	return &rotation.Error{Class: rotation.Configuration, Code: codeNotListed,
		Message: "the PATs can't be listed from here: " + why + "; the plan rests on the vault alone, " +
			"without unmanaged PATs, orphans, changed scopes, and PATs that others revoked"}
}
