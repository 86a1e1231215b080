package administration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/confirmation"
	"github.com/azure-patrol/patrol/internal/rotation"
)

const (
	// ConfirmationLife is how long a plan can be confirmed.
	ConfirmationLife = 15 * time.Minute
	// batchSize keeps well under the 990 of Microsoft's own script.
	batchSize = 800
	maxUsers  = 200
	maxScopes = 200
)

// Config says what Revocations are built from. Organizations and Keys must be set.
type Config struct {
	Organizations Organizations
	// Vault marks the PATs that patrol manages; nil: none is marked.
	Vault Vault
	// Keys are for confirmations, 32 bytes or more each: the first makes them, every
	// one of them counts. Every instance of the app needs the same, or a plan of one is
	// refused by the other.
	Keys [][]byte
	Now  func() time.Time // default time.Now
}

// Revocations plans and carries out an administrator's revocations. It is safe
// for concurrent use.
type Revocations struct {
	organizations Organizations
	vault         Vault
	keys          [][]byte
	now           func() time.Time
}

// New checks the configuration and makes Revocations; it calls nobody.
func New(cfg Config) (*Revocations, error) {
	var problems []error
	if cfg.Organizations == nil {
		problems = append(problems, errors.New("no organizations are configured"))
	}
	isShort := func(key []byte) bool { return len(key) < confirmation.MinKey }
	if len(cfg.Keys) == 0 || slices.ContainsFunc(cfg.Keys, isShort) {
		problems = append(problems, fmt.Errorf("a key for confirmations is needed, of %d bytes", confirmation.MinKey))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("configuring revocations: %w", err)
	}
	r := &Revocations{organizations: cfg.Organizations, vault: cfg.Vault, keys: slices.Clone(cfg.Keys), now: cfg.Now}
	if r.now == nil {
		r.now = time.Now
	}
	return r, nil
}

// Request asks for the revocation of users' PATs.
type Request struct {
	Organization string   `json:"organization"`
	Identity     string   `json:"identity"` // the administrator's, a key of the manifest's identities
	Users        []string `json:"users"`    // principal names, mail addresses or subject descriptors
	// KeepManaged spares the PATs that patrol manages. Without it they are
	// revoked too, and patrol replaces them by its next sweep.
	KeepManaged bool `json:"keepManaged,omitempty"`
	// Rule, if not nil, also ends session and app tokens of everybody.
	Rule *Rule `json:"rule,omitempty"`

	// RequestedBy and Trigger are for the record only: they are no part of
	// what is confirmed.
	RequestedBy string `json:"-"`
	Trigger     string `json:"-"`
}

// PAT is one PAT in a plan.
type PAT struct {
	AuthorizationID string    `json:"authorizationId"`
	DisplayName     string    `json:"displayName"`
	Scopes          []string  `json:"scopes"`
	ValidFrom       time.Time `json:"validFrom,omitzero"`
	ValidTo         time.Time `json:"validTo,omitzero"`
	Global          bool      `json:"global,omitempty"` // of all organizations
	// Managed: patrol keeps it in the vault, as the secret Name. Replaced: its
	// successor is there already, and this one is in its overlap.
	Managed  bool   `json:"managed,omitempty"`
	Name     string `json:"name,omitempty"`
	Replaced bool   `json:"replaced,omitempty"`
	// Foreign: it bears the mark of a patrol, and this one's vault does not
	// know it: it belongs to another deployment, or to a crashed attempt.
	Foreign bool `json:"foreign,omitempty"`
	// Kept: it stays, as KeepManaged has it.
	Kept bool `json:"kept,omitempty"`
}

// UserPlan is one user that was found, with the PATs.
type UserPlan struct {
	User
	Names []string `json:"names"` // as they were asked for
	PATs  []PAT    `json:"pats"`
}

// Ambiguity is a name that means several users: none of them is touched. A
// subject descriptor says which one is meant.
type Ambiguity struct {
	Name       string `json:"name"`
	Candidates []User `json:"candidates"`
}

// RevocationPlan is what a revocation would do.
type RevocationPlan struct {
	Organization string      `json:"organization"`
	Identity     string      `json:"identity"`
	Users        []UserPlan  `json:"users"`
	NotFound     []string    `json:"notFound"`
	Ambiguous    []Ambiguity `json:"ambiguous"`
	Count        int         `json:"count"`   // of PATs that would be revoked
	Managed      int         `json:"managed"` // of these, patrol's own
	Rule         *Rule       `json:"rule,omitempty"`
	Warnings     []string    `json:"warnings"`
	// Confirmation carries exactly this plan out, until Expires. It is empty if
	// there is nothing to do.
	Confirmation string    `json:"confirmation,omitempty"`
	Expires      time.Time `json:"expires,omitzero"`

	global, foreign int // how many of Count are
	batches         [][]string
	asked           confirmation.Digest
}

// Plan finds out what a revocation would do, and revokes nothing.
func (r *Revocations) Plan(ctx context.Context, q Request) (RevocationPlan, error) {
	q, err := q.normal(r.now())
	if err != nil {
		return RevocationPlan{}, err
	}
	return r.plan(ctx, q)
}

// normal checks a request and gives it one form.
func (q Request) normal(now time.Time) (Request, error) {
	if q.Organization == "" || q.Identity == "" {
		return q, refuse(InvalidRequest,
			"organization or identity is missing: name both; the identity is the administrator's")
	}
	users := map[string]bool{}
	for _, name := range q.Users {
		name = strings.TrimSpace(name)
		if strings.Contains(name, "@") {
			name = strings.ToLower(name) // a descriptor has none, and its case counts
		}
		if name == "" {
			return q, refuse(InvalidRequest, "a name in users is empty: name a user or leave it out")
		}
		users[name] = true
	}
	q.Users = sorted(users)
	switch {
	case len(q.Users) > maxUsers:
		return q, refuse(InvalidRequest,
			fmt.Sprintf("users has %d names, and may have %d: ask in several requests", len(q.Users), maxUsers))
	case len(q.Users) == 0 && q.Rule == nil:
		return q, refuse(InvalidRequest, "users is empty: name the users whose PATs to revoke")
	case q.Rule == nil:
		return q, nil
	}
	rule, err := q.Rule.normal(now)
	q.Rule = &rule
	return q, err
}

// normal checks a rule and gives it one form.
func (r Rule) normal(now time.Time) (Rule, error) {
	scopes := map[string]bool{}
	for _, s := range r.Scopes {
		for _, one := range strings.Fields(s) {
			scopes[one] = true
		}
	}
	rule := Rule{Scopes: sorted(scopes), CreatedBefore: r.CreatedBefore.UTC().Truncate(time.Millisecond)}
	switch {
	case len(scopes) == 0 || len(scopes) > maxScopes:
		return rule, refuse(InvalidRequest,
			fmt.Sprintf("rule.scopes has %d scopes: name 1 to %d, those of the tokens to end", len(scopes), maxScopes))
	case rule.CreatedBefore.IsZero():
		return rule, refuse(InvalidRequest,
			"rule.createdBefore is missing: name a past time, the rule ends tokens that were made before it")
	case rule.CreatedBefore.After(now):
		return rule, refuse(InvalidRequest,
			"rule.createdBefore is in the future: name a past time, the rule ends tokens that were made before it")
	}
	return rule, nil
}

func sorted(set map[string]bool) []string {
	out := make([]string, 0, len(set))
	for s := range set {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// plan takes a request in its normal form.
func (r *Revocations) plan(ctx context.Context, q Request) (RevocationPlan, error) {
	p := RevocationPlan{
		Organization: q.Organization, Identity: q.Identity, Rule: q.Rule,
		Users: []UserPlan{}, NotFound: []string{}, Ambiguous: []Ambiguity{}, Warnings: []string{},
		asked: askedDigest(q),
	}
	o := rotation.Owner{Identity: q.Identity, Organization: q.Organization}
	if len(q.Users) > 0 {
		users, err := r.organizations.Users(ctx, o, q.Users)
		if err != nil {
			return RevocationPlan{}, err
		}
		p.sort(q.Users, users)
	}
	known, err := r.managed(ctx)
	if err != nil {
		if q.KeepManaged {
			return RevocationPlan{}, fmt.Errorf("reading which PATs patrol manages: %w", err)
		}
		p.warn("The vault could not be read: PATs that patrol manages are not marked.")
	}
	if err := r.addPATs(ctx, o, &p, known, q.KeepManaged); err != nil {
		return RevocationPlan{}, err
	}
	p.warnOfConsequences()
	if p.Count > 0 || q.Rule != nil {
		expires := r.now().Add(ConfirmationLife).Truncate(time.Second)
		p.Confirmation, p.Expires = r.seal(p, expires), expires.UTC()
	}
	return p, nil
}

// addPATs lists the PATs of the plan's users and counts those that would be revoked.
func (r *Revocations) addPATs(ctx context.Context, o rotation.Owner, p *RevocationPlan, known map[string]secret,
	keepManaged bool) error {
	ids := map[string]bool{}
	for i := range p.Users {
		u := &p.Users[i]
		pats, err := r.organizations.UserPATs(ctx, o, u.Descriptor)
		if err != nil {
			return err
		}
		u.PATs = []PAT{}
		for _, listed := range pats {
			x := mark(listed, known)
			x.Kept = x.Managed && keepManaged
			u.PATs = append(u.PATs, x)
			if id := strings.ToLower(x.AuthorizationID); !x.Kept && !ids[id] {
				ids[id] = true
				p.count(x)
			}
		}
		slices.SortFunc(u.PATs, func(x, y PAT) int {
			return cmp.Or(x.ValidTo.Compare(y.ValidTo), cmp.Compare(x.AuthorizationID, y.AuthorizationID))
		})
	}
	p.batches = slices.Collect(slices.Chunk(sorted(ids), batchSize))
	return nil
}

// count adds a PAT to those that would be revoked.
func (p *RevocationPlan) count(x PAT) {
	p.Count++
	if x.Managed {
		p.Managed++
	}
	if x.Global {
		p.global++
	}
	if x.Foreign {
		p.foreign++
	}
}

// warnOfConsequences says what carrying out the plan leads to.
func (p *RevocationPlan) warnOfConsequences() {
	if p.Managed > 0 {
		p.warn(fmt.Sprintf("%d of these PATs are managed by patrol: their consumers fail until patrol has replaced "+
			"them, which its next sweep does.", p.Managed))
	}
	if p.foreign > 0 {
		p.warn(fmt.Sprintf("%d of these PATs bear the mark of a patrol and are not in this one's vault: "+
			"another deployment may use them.", p.foreign))
	}
	if p.global > 0 {
		p.warn(fmt.Sprintf("%d of these PATs are valid in every organization: they end in all of them.", p.global))
	}
	if len(p.Ambiguous) > 0 {
		p.warn("A name that several users have is left out: name the user by its subject descriptor.")
	}
	if p.Count > 0 {
		p.warn("Azure DevOps may accept a PAT for up to an hour after an administrator has revoked it.")
	}
	if p.Rule != nil {
		p.warn("The revocation rule ends the session and app tokens (JWTs) of everybody in the organization, whoever " +
			"was named: people must sign in again, and apps need new tokens. It cannot be undone.")
	}
}

func (p *RevocationPlan) warn(text string) { p.Warnings = append(p.Warnings, text) }

// sort finds the names that mean one user, none, or several.
func (p *RevocationPlan) sort(names []string, users []User) {
	users = slices.Clone(users)
	slices.SortFunc(users, func(x, y User) int { return cmp.Compare(x.Descriptor, y.Descriptor) })
	users = slices.CompactFunc(users, func(x, y User) bool { return x.Descriptor == y.Descriptor })
	for _, name := range names {
		var meant []User
		for _, u := range users {
			if u.Descriptor != "" && u.Is(name) {
				meant = append(meant, u)
			}
		}
		switch len(meant) {
		case 0:
			p.NotFound = append(p.NotFound, name)
		case 1:
			i := slices.IndexFunc(p.Users, func(u UserPlan) bool { return u.Descriptor == meant[0].Descriptor })
			if i < 0 {
				i = len(p.Users)
				p.Users = append(p.Users, UserPlan{User: meant[0]})
			}
			p.Users[i].Names = append(p.Users[i].Names, name)
		default:
			p.Ambiguous = append(p.Ambiguous, Ambiguity{name, meant})
		}
	}
}

// secret is a PAT's place in the vault.
type secret struct {
	name     string
	replaced bool
}

// managed finds the PATs that the vault knows, by authorization id.
func (r *Revocations) managed(ctx context.Context) (map[string]secret, error) {
	known := map[string]secret{}
	if r.vault == nil {
		return known, nil
	}
	for v, err := range r.vault.Secrets(ctx) {
		if err != nil {
			return nil, err
		}
		if l := v.Ledger; l.Ours() {
			if id := strings.ToLower(l.Previous); id != "" && known[id].name == "" {
				known[id] = secret{v.Name, true}
			}
			if id := strings.ToLower(l.AuthorizationID); id != "" {
				known[id] = secret{v.Name, false}
			}
		}
	}
	return known, nil
}

func mark(p rotation.PAT, known map[string]secret) PAT {
	x := PAT{
		AuthorizationID: p.AuthorizationID, DisplayName: p.DisplayName, Scopes: p.Scopes,
		ValidFrom: p.ValidFrom, ValidTo: p.ValidTo, Global: p.Global,
	}
	if s, ok := known[strings.ToLower(p.AuthorizationID)]; ok {
		x.Managed, x.Name, x.Replaced = true, s.name, s.replaced
	} else if _, _, _, ok := rotation.ParseDisplayName(p.DisplayName); ok {
		x.Foreign = true
	}
	return x
}
