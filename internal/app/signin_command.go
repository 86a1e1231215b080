package app

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"html"
	"net"
	"net/http"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/manifest"
	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/internal/vault"
)

const signInUsage = `Usage: handler sign-in [flags] <identity>

Signs an identity of the manifest in from this machine: the person who is named
there signs in in a browser here, and the sign-in goes into Key Vault, where the
app finds it. Your own Azure sign-in (az login) must be allowed to read and write
the vault's secrets. The app registration needs the redirect URI http://localhost
on the platform "Mobile and desktop applications".

Settings, from the environment: KEY_VAULT_URL, ENTRA_TENANT_ID, ENTRA_CLIENT_ID,
PATROL_MANIFEST (default pats.yaml), AZURE_AUTHORITY_HOST.

Exit code 0: signed in. 1: not. 2: the command line can't be understood.

Flags:
`

const deviceWarning = `Warning: Microsoft advises tenants to block the device code flow. Whoever talks
somebody into typing in a code has that person's sign-in, and a policy that is made
later ends a sign-in that was made this way. Use it only where no browser can be
opened, and never with a code that somebody else has sent.

`

// errAppNotifies leaves the event about a sign-in to the app, which has a bus.
var errAppNotifies = errors.New("the app sends the event")

// SignIn is the command that signs an identity in from an operator's machine.
func SignIn(ctx context.Context, args []string, p Process) error {
	flags := flag.NewFlagSet("sign-in", flag.ContinueOnError)
	device := flags.Bool("device-code", false,
		"sign in on another device, with a code; Microsoft advises to block this")
	noBrowser := flags.Bool("no-browser", false, "print the page's address and open nothing")
	confirm := flags.String("confirm-user-id", "", "accept this `object id` though another one has signed in before")
	patience := flags.Duration("timeout", 10*time.Minute, "how long to wait for the person")
	if err := parse(flags, args, signInUsage); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return &usageError{text: "name one identity of the manifest, as in: handler sign-in build-bot"}
	}
	identity := flags.Arg(0)
	s, err := readSignInSettings(p.Getenv)
	if err != nil {
		return errors.New(strings.Join(problems(err), "\n  "))
	}
	m, _, err := manifest.Read(s.Manifest)
	if err != nil {
		return errors.New(strings.Join(problems(err), "\n  "))
	}
	who, ok := m.Identities[identity]
	if r, isRefused := m.RefusedIdentity(identity); isRefused {
		return fmt.Errorf("the manifest's identity %s is refused: %s", identity, r)
	}
	if !ok {
		return fmt.Errorf("the manifest has no identity %q, it has: %s", identity, strings.Join(names(m), ", "))
	}
	p.Outside.fill()
	client, err := signInClient(s, m, p)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *patience)
	defer cancel()
	// Before a person is asked for anything: can the vault be read?
	before, err := client.Status(ctx, identity)
	if err != nil {
		return fmt.Errorf("the vault can't be used: %w", err)
	}
	if !before.SignedIn.IsZero() {
		fmt.Fprintf(p.Out, "There is a sign-in of %s already; a new one takes its place.\n",
			before.SignedIn.Format(time.RFC3339))
	}
	if *device {
		err = signInByDevice(ctx, client, identity, who.User, *confirm, p)
	} else {
		err = signInHere(ctx, client, identity, who.User, *confirm, *noBrowser, p)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("nobody has signed in within %s", *patience)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted: nobody has signed in")
	case err != nil:
		return explain(err, identity, s.ClientID)
	}
	fmt.Fprintf(p.Out, "Signed in as %s: stored in %s as %s. The app takes it within a minute.\n", who.User, s.Vault,
		entra.SecretName(identity))
	return nil
}

// explain adds what to do next at a terminal.
func explain(err error, identity, clientID string) error {
	r, ok := errors.AsType[*entra.SignInRefusal](err)
	if ok && r.Cause == entra.UserIDChanged && r.UserID != "" {
		return fmt.Errorf("%w\nIf that is right: handler sign-in -confirm-user-id %s %s", err, r.UserID, identity)
	}
	if entra.NeedsAdminConsent(err) {
		return fmt.Errorf("%w\nAn administrator of the tenant can do it: az ad app permission admin-consent --id %s",
			err, clientID)
	}
	return err
}

func names(m *manifest.Manifest) []string {
	var out []string
	for name := range m.Identities {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// readSignInSettings reads the settings that a sign-in needs, and no others: an
// operator's machine has no bus and no schedule.
func readSignInSettings(getenv func(string) string) (Settings, error) {
	r := &reader{getenv: getenv}
	s := Settings{
		Manifest: r.text("PATROL_MANIFEST", "pats.yaml"),
		Vault: r.url("KEY_VAULT_URL",
			r.required("KEY_VAULT_URL", "the vault's address, like https://contoso.vault.azure.net"),
			"https://contoso.vault.azure.net"),
		Authority: r.url("AZURE_AUTHORITY_HOST", r.text("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com"),
			"https://login.microsoftonline.com"),
		Tenant:   r.required("ENTRA_TENANT_ID", "the id of the tenant"),
		ClientID: r.required("ENTRA_CLIENT_ID", "the id of the app registration that people sign in to"),
	}
	r.local(&s)
	if len(r.problems) > 0 {
		return s, &SettingsError{r.problems}
	}
	return s, nil
}

func signInClient(s Settings, m *manifest.Manifest, p Process) (*entra.Client, error) {
	o := p.Outside
	client := &http.Client{Transport: o.Transport}
	options := azcore.ClientOptions{Transport: client, Retry: o.Retry.HTTP}
	options.Telemetry.ApplicationID = telemetryID(p.Version)
	cred := p.Credential
	if cred == nil {
		c, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: options,
			DisableInstanceDiscovery: s.Local})
		if err != nil {
			return nil, errors.New("there is no Azure sign-in on this machine: run az login")
		}
		cred = c
	}
	v, err := vault.New(vault.Config{URL: s.Vault.String(), Credential: cred, ClientOptions: options,
		DisableChallengeResourceVerification: s.Local, Log: o.Log, Now: o.Now})
	if err != nil {
		return nil, err
	}
	c := signInConfig(s, m, vault.NewStore(v), client, o)
	c.Notify = func(context.Context, rotation.Event) error { return errAppNotifies }
	return entra.New(c)
}

func signInByDevice(ctx context.Context, client *entra.Client, identity, user, confirm string, p Process) error {
	fmt.Fprint(p.Err, deviceWarning)
	return client.SignInByDevice(ctx, identity, confirm, func(d entra.DeviceCode) {
		fmt.Fprintf(p.Out, "To sign in as %s, open %s\nand enter the code %s (good until %s).\n", user, d.URL,
			d.UserCode, d.Expires.Local().Format(time.TimeOnly))
	})
}

// signInHere waits for the browser's answer on a loopback port, which Entra
// ignores when it compares http://localhost.
func signInHere(ctx context.Context, client *entra.Client, identity, user, confirm string, noBrowser bool,
	p Process) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "localhost:0")
	if err != nil {
		return fmt.Errorf("listening for the browser: %w", err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		_ = listener.Close()
		return fmt.Errorf("listening for the browser: %w", err)
	}
	verifier := rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(verifier))
	request := entra.SignInRequest{
		RedirectURI: "http://localhost:" + port, State: rand.Text(), Nonce: rand.Text(),
		Challenge: base64.RawURLEncoding.EncodeToString(sum[:]), FormPost: true,
	}
	answers := newAnswers("localhost:"+port, request.State, func(c entra.Callback) error {
		if c.Refused != nil {
			return c.Refused
		}
		return client.CompleteSignIn(ctx, identity, entra.CodeGrant{Code: c.Code, RedirectURI: request.RedirectURI,
			Verifier: rotation.NewSecret(verifier), Nonce: request.Nonce, ConfirmUserID: confirm})
	})
	server := &http.Server{Handler: answers, ReadHeaderTimeout: 10 * time.Second}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) }) // ends with Shutdown
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if server.Shutdown(stop) != nil {
			_ = server.Close()
		}
		serving.Wait()
	}()
	page, err := client.SignInURL(ctx, identity, request)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Out, "Sign in as %s in the browser. If none opens, go to:\n\n  %s\n\n", user, page)
	if !noBrowser {
		open := p.Open
		if open == nil {
			open = openBrowser
		}
		if err := open(ctx, page); err != nil {
			fmt.Fprintln(p.Err, "The browser can't be opened: use the address above.")
		}
	}
	select {
	case err := <-answers.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answers takes the one answer that belongs to a sign-in. It is posted, so that
// the code is in no address and no history.
type answers struct {
	host, state string
	complete    func(entra.Callback) error

	mu   sync.Mutex
	over bool
	done chan error
}

func newAnswers(host, state string, complete func(entra.Callback) error) *answers {
	return &answers{host: host, state: state, complete: complete, done: make(chan error, 1)}
}

func (a *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	show := func(status int, title, text string) {
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, donePage, title, html.EscapeString(text))
	}
	if r.Host != a.host || r.URL.Path != "/" {
		show(http.StatusNotFound, "Not found", "There is nothing here.")
		return
	}
	if r.Method != http.MethodPost {
		h.Set("Allow", http.MethodPost)
		show(http.StatusMethodNotAllowed, "Not an answer", "Entra's answer comes in another way.")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		show(http.StatusBadRequest, "Not an answer", "The form can't be read.")
		return
	}
	c, err := entra.ReadCallback(r.PostForm)
	if err != nil || c.AdminConsent || subtle.ConstantTimeCompare([]byte(c.State), []byte(a.state)) != 1 {
		show(http.StatusBadRequest, "Not an answer", "This does not belong to the sign-in that waits here.")
		return
	}
	a.mu.Lock()
	first := !a.over
	a.over = true
	a.mu.Unlock()
	if !first {
		show(http.StatusConflict, "Answered already", "You can close this page.")
		return
	}
	err = a.complete(c)
	if err != nil {
		show(http.StatusOK, "Not signed in", err.Error())
	} else {
		show(http.StatusOK, "Signed in", "The sign-in is in the vault. You can close this page.")
	}
	a.done <- err
}

// donePage has a title of patrol's own twice, and a text that is escaped.
const donePage = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>patrol: %[1]s</title><h1>%[1]s</h1><p>%[2]s</p></html>
`

// openBrowser starts the system's browser and does not wait for it.
func openBrowser(ctx context.Context, page string) error {
	name, args := "xdg-open", []string{page}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", page}
	}
	c := exec.CommandContext(context.WithoutCancel(ctx), name, args...)
	if err := c.Start(); err != nil {
		return err
	}
	go func() { _ = c.Wait() }() // it may outlive the command
	return nil
}
