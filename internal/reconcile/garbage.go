package reconcile

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// garbage is a PAT with our mark that no list of the vault's secrets names: what an
// interrupted attempt has left, or what lost its secret.
type garbage struct {
	owner  rotation.Owner
	pat    rotation.PAT
	spec   rotation.Spec // of the secret that it belongs to; only a name where the manifest has none
	secret string        // empty: no secret was found for it
	// endsAt is when it may end; zero: at its own end. closes is the version to close
	// with it: an older version of its secret names it.
	endsAt time.Time
	closes *rotation.Version
	rotate string // the id of the rotation that replaced it, or that made it
	// isKept: it is shown as unmanaged.
	isKept bool
}

// names are the authorization ids that the vault's secrets name, in lower case, and the
// beginnings of those that a replaced PAT has left in the facts.
type names struct{ full, short map[string]bool }

func namedBy(secrets []rotation.Version) names {
	n := names{full: make(map[string]bool, 2*len(secrets)), short: make(map[string]bool, len(secrets))}
	for _, v := range secrets {
		n.full[strings.ToLower(v.Ledger.AuthorizationID)] = true
		n.full[strings.ToLower(v.Ledger.Previous)] = true
		if v.Ledger.Previous == "" && v.Ledger.Facts.Previous != "" {
			n.short[v.Ledger.Facts.Previous] = true
		}
	}
	return n
}

func (n names) has(authorizationID string) bool {
	return n.full[strings.ToLower(authorizationID)] || n.short[rotation.ShortID(authorizationID)]
}

// isOurs reports whether a PAT bears the mark of this deployment.
func (p *planning) isOurs(pat rotation.PAT) bool {
	_, tag, _, marked := rotation.ParseDisplayName(pat.DisplayName)
	return marked && tag == p.VaultTag || pat.DisplayName == rotation.CanaryName
}

// findGarbage collects, for each owner whose PATs were listed, the PATs with our mark
// that no secret names, in two lists of which the second is read after they were found.
// It changes nothing.
func (p *planning) findGarbage(ctx context.Context) {
	if p.vaultErr != nil {
		return
	}
	found := p.unnamed(namedBy(p.all))
	if len(found) == 0 {
		return
	}
	again, err := p.secrets.get(ctx, p.Now())
	if err != nil {
		p.Log.WarnContext(ctx, "garbage is not collected: the vault's secrets could not be listed again",
			"class", string(rotation.ClassOf(err)))
		return
	}
	named := namedBy(again)
	found = slices.DeleteFunc(found, func(g garbage) bool { return named.has(g.pat.AuthorizationID) })
	s := search{planning: p, versions: map[string][]rotation.Version{}}
	for _, g := range found {
		err := s.judge(ctx, &g)
		if err != nil {
			p.Log.WarnContext(ctx, "a PAT with our mark was left alone: its secret's versions could not be read",
				"authorizationId", g.pat.AuthorizationID, "class", string(rotation.ClassOf(err)))
			g.isKept = true
		}
		p.garbage = append(p.garbage, g)
	}
}

// unnamed are the PATs with our mark that are old enough and that nobody names.
func (p *planning) unnamed(named names) []garbage {
	var out []garbage
	for _, o := range p.owners {
		if o.pats == nil {
			continue
		}
		o.pats.each(func(pat rotation.PAT) {
			isOld := p.plan.At.Sub(pat.ValidFrom) >= rotation.OrphanAge
			if isOld && p.isOurs(pat) && !named.has(pat.AuthorizationID) {
				out = append(out, garbage{owner: o.owner, pat: pat})
			}
		})
	}
	return out
}

// search finds the secrets that garbage belongs to. Each secret's versions are listed
// once.
type search struct {
	*planning
	versions map[string][]rotation.Version // newest first, by name
	deleted  []rotation.Version
	wholly   bool // every secret that patrol wrote has been listed
}

// judge says when a PAT may end. Provably of an interrupted attempt is only one whose
// rotation id follows from a version of its secret, or from none, and that is young. Any
// other waits for the overlap: readers may hold it, of a secret that was purged or
// restored.
func (s *search) judge(ctx context.Context, g *garbage) error {
	declared, _, id, marked := rotation.ParseDisplayName(g.pat.DisplayName)
	if !marked {
		g.endsAt, g.spec = s.plan.At, rotation.Spec{Name: rotation.CanaryName} // a canary
		return nil
	}
	g.rotate = id
	err := s.find(ctx, g, declared, id)
	if err != nil {
		return err
	}
	if g.secret == "" {
		g.isKept = true
		return nil
	}
	versions := s.versions[g.secret]
	for i, v := range versions {
		if !strings.EqualFold(v.Ledger.AuthorizationID, g.pat.AuthorizationID) {
			continue
		}
		s.known(g, versions, i)
		return nil
	}
	if s.mayBeLatest(g.secret, id) {
		g.isKept = true // somebody has taken the tags off the version that holds it
		return nil
	}
	if len(versions) == 0 {
		g.isKept, err = s.mayComeBack(ctx, g.secret)
		if err != nil || g.isKept {
			return err
		}
	}
	if s.follows(g.secret, id) && s.plan.At.Sub(g.pat.ValidFrom) < 2*s.interval() {
		g.endsAt = s.plan.At
		return nil
	}
	if len(versions) == 0 {
		// Purged, and not provisioned again: the overlap begins with the next version.
		g.isKept = true
		return nil
	}
	since := later(g.pat.ValidFrom, versions[0].Created)
	isDeleted, err := s.deletedHolds(ctx, g.owner)
	if err != nil {
		return err
	}
	g.isKept = isDeleted
	if !isDeleted {
		g.endsAt = since.Add(g.spec.Overlap + rotation.StoreSlack)
	}
	return nil
}

// known judges a PAT that an older version names although the vault's list does not: it
// was replaced twice, or two instances at once have stored versions. It ends when the
// version after it says, as any replaced PAT.
func (s *search) known(g *garbage, versions []rotation.Version, i int) {
	v := versions[i]
	g.closes = &v
	if i == 0 {
		return // it is the latest: readers hold it
	}
	next := versions[i-1]
	g.rotate = next.Ledger.RotationID
	if !v.Ledger.RevokedAt.IsZero() {
		return // closed
	}
	ends := next.Created.Add(g.spec.Overlap + rotation.StoreSlack)
	if next.Ledger.PreviousVersion == v.ID {
		ends = later(ends, next.Ledger.RevokePreviousAt)
	}
	o := rotation.Observed{Current: &versions[0], Replaced: versions[1 : i+1], PATs: []rotation.PAT{g.pat}}
	g.endsAt = o.HeldUntil(g.spec, i-1, ends)
}

// find finds the secret that a PAT's display name and rotation id point to; where they
// point to none, among all that patrol wrote.
func (s *search) find(ctx context.Context, g *garbage, declared, id string) error {
	for _, name := range s.pointedTo(declared, id) {
		err := s.list(ctx, name)
		if err != nil {
			return err
		}
		if s.follows(name, id) || s.holds(name, g.pat.AuthorizationID) {
			s.belongs(g, name)
			return nil
		}
	}
	if !s.wholly {
		for _, v := range s.all {
			if !v.Ledger.Ours() {
				continue
			}
			err := s.list(ctx, v.Name)
			if err != nil {
				return err
			}
		}
		s.wholly = true
	}
	for _, v := range s.all {
		if s.follows(v.Name, id) || s.holds(v.Name, g.pat.AuthorizationID) {
			s.belongs(g, v.Name)
			return nil
		}
	}
	// The name alone: a purged secret that was made anew.
	for _, spec := range s.specs {
		if strings.EqualFold(spec.DisplayName, declared) && spec.Owner() == g.owner {
			s.belongs(g, spec.Name)
			return nil
		}
	}
	return nil
}

// pointedTo are the secrets that a PAT's display name, or a rotation id without a
// version, names.
func (s *search) pointedTo(declared, id string) []string {
	var out []string
	for _, spec := range s.specs {
		if strings.EqualFold(spec.DisplayName, declared) || rotation.RotationID(spec.Name, "") == id {
			out = append(out, spec.Name)
		}
	}
	for _, v := range s.released {
		if strings.EqualFold(v.Name, declared) || rotation.RotationID(v.Name, "") == id {
			out = append(out, v.Name)
		}
	}
	return out
}

func (s *search) belongs(g *garbage, name string) {
	g.secret = name
	spec, ok := s.Spec(name)
	if !ok {
		spec = rotation.Spec{Name: name, Identity: g.owner.Identity, Organization: g.owner.Organization,
			DisplayName: name, Overlap: s.DefaultOverlap}
	}
	g.spec = spec
}

func (s *search) list(ctx context.Context, name string) error {
	if _, done := s.versions[name]; done {
		return nil
	}
	versions, err := s.Vault.Versions(ctx, name)
	if err != nil {
		return err
	}
	s.versions[name] = versions
	return nil
}

// follows reports whether a rotation id follows from a version of the secret, or from
// none.
func (s *search) follows(name, id string) bool {
	if rotation.RotationID(name, "") == id {
		return true
	}
	return slices.ContainsFunc(s.versions[name], func(v rotation.Version) bool {
		return rotation.RotationID(name, v.ID) == id
	})
}

// mayBeLatest reports whether the latest version of a secret has no ledger and the PAT's
// mark says that it was made in the place of the version before it.
func (s *search) mayBeLatest(name, id string) bool {
	versions := s.versions[name]
	if len(versions) == 0 {
		return false
	}
	l := versions[0].Ledger
	isNamed := l.Ours() && l.AuthorizationID != ""
	before := ""
	if len(versions) > 1 {
		before = versions[1].ID
	}
	return !isNamed && rotation.RotationID(name, before) == id
}

func (s *search) holds(name, authorizationID string) bool {
	return slices.ContainsFunc(s.versions[name], func(v rotation.Version) bool {
		return strings.EqualFold(v.Ledger.AuthorizationID, authorizationID)
	})
}

// deletedHolds reports whether a deleted secret of this owner can be recovered: Key Vault
// shows its last version only, so any of the owner's PATs may be of it.
func (s *search) deletedHolds(ctx context.Context, o rotation.Owner) (bool, error) {
	address := s.ProviderAddress(o.Organization)
	err := s.listDeleted(ctx)
	return slices.ContainsFunc(s.deleted, func(v rotation.Version) bool {
		return v.Ledger.Identity == o.Identity && strings.EqualFold(v.Ledger.ProviderAddress, address)
	}), err
}

// mayComeBack reports whether a secret that shows no versions is deleted and can be
// recovered with what it holds, or has been recovered a moment ago.
func (s *search) mayComeBack(ctx context.Context, name string) (bool, error) {
	err := s.listDeleted(ctx)
	if err != nil {
		return false, err
	}
	isDeleted := slices.ContainsFunc(s.deleted, func(v rotation.Version) bool {
		return strings.EqualFold(v.Name, name)
	})
	if isDeleted {
		return true, nil
	}
	versions, err := s.Vault.Versions(ctx, name)
	return len(versions) > 0, err
}

// listDeleted lists the vault's deleted secrets, once.
func (s *search) listDeleted(ctx context.Context) error {
	vault, ok := s.Vault.(rotation.DeletedVault)
	if !ok || s.deleted != nil {
		return nil
	}
	deleted := []rotation.Version{}
	for v, err := range vault.Deleted(ctx) {
		if err != nil {
			return err
		}
		deleted = append(deleted, v)
	}
	s.deleted = deleted
	return nil
}

// interval is the time between two sweeps.
func (r *Reconciler) interval() time.Duration {
	if r.Interval > 0 {
		return r.Interval
	}
	return defaultInterval
}

// defaultInterval is that of the schedule in our samples.
const defaultInterval = 6 * time.Hour

// endGarbage ends what the plan has found and whose time has come.
func (p *planning) endGarbage(ctx context.Context) error {
	var ends []func() error
	for _, g := range p.garbage {
		isDue := !g.endsAt.IsZero() && !g.endsAt.After(p.plan.At)
		if isDue {
			ends = append(ends, func() error { return p.end(ctx, g) })
		}
	}
	return inParallel(ends)
}

// end ends one PAT, publishes that, and closes the version that names it, if one does.
// If the process ends in between, the next sweep finds the PAT gone: then its event is
// not sent, and its version is closed by nobody, which costs a reader of old versions
// nothing that the revocation has not.
func (p *planning) end(ctx context.Context, g garbage) error {
	id := g.pat.AuthorizationID
	log := p.Log.With("pat", g.spec.Name, "authorizationId", id)
	if g.closes != nil {
		holder, err := p.heldBy(ctx, *g.closes, g.pat.ValidFrom)
		if err != nil || holder != "" {
			log.WarnContext(ctx, "a PAT whose overlap is over was left alone: a secret holds it, or could not be read",
				"secret", holder)
			return err
		}
	}
	err := p.Tokens.Revoke(ctx, g.owner, id)
	record := rotation.Record{Trigger: "sweep", Act: "revoke-orphan", Target: id, Outcome: "done"}
	if err != nil {
		log.WarnContext(ctx, "a PAT that nothing holds could not be ended; the next sweep tries again",
			"class", string(rotation.ClassOf(err)))
		record.Outcome = "failed"
		record.Write(ctx, p.Log)
		return err
	}
	record.Write(ctx, p.Log)
	p.lists.removeRevoked(g.owner, id)
	revoked := &rotation.Revoked{Spec: g.spec, RotationID: g.rotate, AuthorizationID: id, Cause: rotation.Orphan,
		At: g.endsAt}
	if g.closes != nil {
		revoked.SecretVersion, revoked.Cause = g.closes.ID, rotation.OverlapEnded
	}
	p.Observer.Revoked(ctx, &g.spec, revoked.Cause)
	err = p.Outbox.Publish(ctx, revoked)
	if err != nil {
		log.ErrorContext(ctx, "the end of a PAT that nothing holds could not be published",
			"class", string(rotation.ClassOf(err)))
	}
	if g.closes == nil {
		return nil
	}
	v := *g.closes
	v.Ledger.RevokedAt, v.Enabled, v.Value = p.Now(), false, rotation.Secret{}
	_, err = p.Vault.Update(ctx, v)
	return err
}
