package administration_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/azure-patrol/patrol/internal/administration"
	"github.com/azure-patrol/patrol/internal/devops"
	"github.com/azure-patrol/patrol/internal/rotation"
	azure "github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/memnet"
)

const (
	root  = "root@contoso.com" // the administrator
	ada   = "ada@contoso.com"
	grace = "grace@contoso.com"
)

var key = bytes.Repeat([]byte{7}, 32)

// signedIn is the sign-in of the administrator.
type signedIn struct{}

func (signedIn) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "root", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// vault is the vault's list of secrets.
type vault struct {
	secrets []rotation.Version
	err     error
}

func (v *vault) Secrets(context.Context) iter.Seq2[rotation.Version, error] {
	return func(yield func(rotation.Version, error) bool) {
		for _, s := range v.secrets {
			if !yield(s, nil) {
				return
			}
		}
		if v.err != nil {
			yield(rotation.Version{}, v.err)
		}
	}
}

// fixture is Revocations in front of a sandbox of Azure DevOps.
type fixture struct {
	*administration.Revocations
	azure    *azure.Service
	injector *faults.Injector
	client   *devops.Client
	vault    *vault
	config   administration.Config
}

func run(t *testing.T, test func(*testing.T, *fixture)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &fixture{injector: &faults.Injector{}, vault: &vault{}}
		s.azure = azure.New(azure.Config{Injector: s.injector, Verify: func(token string) (azure.Claims, error) {
			if token != "root" {
				return azure.Claims{}, errors.New("not accepted")
			}
			return azure.Claims{UPN: root, Scopes: []string{"vso.tokenadministration", "vso.graph"}}, nil
		}})
		s.azure.AddOrganization(azure.Organization{Name: "contoso"})
		s.azure.AddUser(azure.User{UPN: root, Administrator: true})
		s.azure.AddUser(azure.User{UPN: ada, MailAddress: "ada.lovelace@contoso.com"})
		s.azure.AddUser(azure.User{UPN: grace})
		var network memnet.Network
		transport := network.Transport()
		var err error
		s.client, err = devops.New(devops.Config{
			Credential:    func(string) (azcore.TokenCredential, error) { return signedIn{}, nil },
			ClientOptions: policy.ClientOptions{Transport: &http.Client{Transport: transport}},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.config = administration.Config{Organizations: s.client.Administration(), Vault: s.vault, Keys: [][]byte{key}}
		s.Revocations, err = administration.New(s.config)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: s.azure}
		l, err := network.Listen("vssps.dev.azure.com:443")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = server.Serve(l) }()
		defer func() {
			transport.CloseIdleConnections()
			_ = server.Close()
			synctest.Wait()
		}()
		test(t, s)
	})
}

// seed gives a user a number of PATs.
func (s *fixture) seed(user string, n int) (ids []string) {
	for range n {
		id, _ := s.azure.Seed("contoso", user, "p", "vso.code", time.Now().Add(48*time.Hour), false)
		ids = append(ids, id)
	}
	return ids
}

func (s *fixture) active(user string) (n int) {
	for _, p := range s.azure.PATs("contoso", user) {
		if p.State == azure.Active {
			n++
		}
	}
	return n
}

func (s *fixture) fault(t *testing.T, f faults.Fault) {
	t.Helper()
	if err := s.injector.Inject(f); err != nil {
		t.Fatal(err)
	}
}

func (s *fixture) calls(operation string) int { return s.injector.Count(azure.ServiceName, operation) }

func of(users ...string) administration.Request {
	return administration.Request{Organization: "contoso", Identity: "root-bot", Users: users, RequestedBy: "on-call",
		Trigger: "POST revocations"}
}

func (s *fixture) plan(t *testing.T, q administration.Request) administration.RevocationPlan {
	t.Helper()
	p, err := s.Plan(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// wants checks an error's code.
func wants(t *testing.T, what string, err error, code string) *rotation.Error {
	t.Helper()
	e := rotation.AsError(err)
	if e == nil || e.Code != code {
		t.Errorf("%s: error %v, want code %s", what, err, code)
		return &rotation.Error{}
	}
	return e
}

func warned(p administration.RevocationPlan, part string) bool {
	return strings.Contains(strings.Join(p.Warnings, "\n"), part)
}
