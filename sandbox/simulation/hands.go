package simulation

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/azure-patrol/patrol/internal/rotation"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/devops"
	"github.com/azure-patrol/patrol/sandbox/faults"
	"github.com/azure-patrol/patrol/sandbox/keyvault"
)

// Hand is something that a person or another tool does, at any moment, to what patrol
// works with. In a plan its name stands where the way of going wrong does.
type Hand struct {
	Name Mode
	// do is called while an upstream call waits: it must call no service over its network.
	// false: there is nothing yet that it could be done to.
	do func(w *World) bool
}

// Touch is what a hand has done, as the judge must know it beside the cloud's history.
type Touch struct {
	At   time.Time
	Hand Mode
	// Version was put by the hand; Disabled, it was disabled by it.
	Version  string
	Disabled bool
	// PAT was ended or edited, by its authorization id; Ended, it was revoked.
	PAT   string
	Ended bool
}

// The names of what hands make.
const (
	handled      = "jenkins-agents"
	copied       = "a-copy"
	renamedUser  = "build-robot@contoso.com"
	otherUser    = "release-bot@contoso.com"
	otherOrg     = "fabrikam"
	renamedOrg   = "contoso-ltd"
	foreignMark  = "zz99zz"
	portalName   = "renamed in the portal"
	noPAT        = "Server=db;Password=hunter2"
	handsOutage  = 7 * time.Hour
	handsAbsence = 3 * time.Hour
)

// Hands are all of them.
func Hands() []Hand {
	var out []Hand
	add := func(name Mode, do func(w *World) bool) { out = append(out, Hand{name, do}) }

	add("tags replaced by one of others", editLatest(func(v *keyvault.Version) {
		v.Tags = map[string]string{"owner": "x"}
	}))
	add("tags of the version before replaced", func(w *World) bool {
		return w.edit(1, func(v *keyvault.Version) { v.Tags = map[string]string{"owner": "x"} })
	})
	for _, tag := range ourTags {
		add(Mode("tag "+tag+" removed"), func(w *World) bool {
			v, ok := w.Latest(handled)
			return ok && v.Tags[tag] != "" && w.edit(0, func(v *keyvault.Version) { delete(v.Tags, tag) })
		})
	}
	add("tags filled to 15", editLatest(func(v *keyvault.Version) {
		for i := 0; len(v.Tags) < 15; i++ {
			v.Tags[fmt.Sprintf("team-%02d", i)] = "x"
		}
	}))
	add("revocation time moved to now", editLatest(func(v *keyvault.Version) {
		v.Tags["patrol-revoke-previous-at"] = time.Now().UTC().Format(time.RFC3339)
	}))
	add("exp moved to a minute ahead", editLatest(func(v *keyvault.Version) {
		v.Expires = time.Now().Add(time.Minute)
	}))
	add("exp moved to a day ahead", editLatest(func(v *keyvault.Version) {
		v.Expires = time.Now().Add(rotation.Day)
	}))
	add("exp moved by five years", editLatest(func(v *keyvault.Version) {
		v.Expires = time.Now().AddDate(5, 0, 0)
	}))
	add("content type changed", editLatest(func(v *keyvault.Version) { v.ContentType = "text/plain" }))

	add("latest version disabled", func(w *World) bool { return w.disable() })
	add("latest version disabled, and enabled after an hour", func(w *World) bool {
		v, ok := w.Latest(handled)
		w.later(time.Hour, func() {
			_, _ = w.Cloud.Vault.Change(handled, v.ID, func(v *keyvault.Version) { v.Enabled = true })
		})
		return ok && w.disable()
	})
	add("version before disabled", func(w *World) bool {
		return w.edit(1, func(v *keyvault.Version) { v.Enabled = false })
	})
	add("version before enabled", func(w *World) bool {
		return w.edit(1, func(v *keyvault.Version) { v.Enabled = true })
	})

	add("value put again without tags", putAgain(0, func(v *keyvault.Version) { v.Tags, v.Expires = nil, time.Time{} }))
	add("value put again with its tags, without exp", putAgain(0, func(v *keyvault.Version) {
		v.Expires = time.Time{}
	}))
	add("value of the version before put again", putAgain(1, func(v *keyvault.Version) { v.Tags = nil }))
	add("version before put again with its tags", putAgain(1, func(*keyvault.Version) {}))
	add("trailing newline", putAgain(0, func(v *keyvault.Version) { v.Value, v.Tags = v.Value+"\n", nil }))
	add("trailing newline under the old tags", putAgain(0, func(v *keyvault.Version) { v.Value += "\r\n" }))
	add("foreign value", func(w *World) bool { return w.putForeign(nil) })
	add("foreign value under the old tags", func(w *World) bool {
		v, ok := w.Latest(handled)
		return ok && w.putForeign(v.Tags)
	})
	add("garbage", func(w *World) bool {
		return w.put(keyvault.Version{Name: handled, Value: noPAT})
	})
	add("garbage under the old tags", putAgain(0, func(v *keyvault.Version) { v.Value = noPAT }))
	add("dead value under the old tags", putAgain(0, func(v *keyvault.Version) { v.Value = strings.Repeat("w", 52) }))
	add("another vault's secret put with its tags", func(w *World) bool { return w.putOtherVaults() })

	add("secret copied with its tags", func(w *World) bool {
		v, ok := w.Latest(handled)
		v.Name = copied
		return ok && w.put(v)
	})
	add("secret copied without tags", func(w *World) bool {
		v, ok := w.Latest(handled)
		return ok && w.put(keyvault.Version{Name: copied, Value: v.Value})
	})
	add("secret copied with its tags, and declared", func(w *World) bool {
		v, ok := w.Latest(handled)
		v.Name = copied
		return ok && w.put(v) && w.deploy(func(m string) string {
			return m + entry(copied, "A copy")
		})
	})
	add("secret deleted", func(w *World) bool { return w.Cloud.Vault.Delete(handled) == nil })
	add("secret deleted, and recovered after an hour", func(w *World) bool {
		w.later(time.Hour, func() { _ = w.Cloud.Vault.Recover(handled) })
		return w.Cloud.Vault.Delete(handled) == nil
	})
	add("secret purged", func(w *World) bool {
		_, ok := w.Latest(handled)
		w.Purge(handled)
		return ok
	})

	add("PAT extended", inPortal(func(p *devops.PAT) { p.ValidTo = p.ValidTo.AddDate(0, 0, 30) }))
	add("PAT shortened", inPortal(func(p *devops.PAT) { p.ValidTo = time.Now().Add(time.Hour) }))
	add("PAT renamed", inPortal(func(p *devops.PAT) { p.DisplayName = portalName }))
	add("PAT given other scopes", inPortal(func(p *devops.PAT) { p.Scopes = []string{"vso.code"} }))
	add("PAT revoked in the portal", func(w *World) bool {
		id, ok := w.patOf(0)
		if ok && w.Cloud.DevOps.Revoke(id) {
			w.touch(Touch{PAT: id, Ended: true})
			return true
		}
		return false
	})
	add("PAT before revoked in the portal", func(w *World) bool {
		id, ok := w.patOf(1)
		if ok && w.Cloud.DevOps.Revoke(id) {
			w.touch(Touch{PAT: id, Ended: true})
			return true
		}
		return false
	})

	add("entry renamed", deployed("name: "+handled, "name: jenkins-agents-2"))
	add("display name changed", deployed("displayName: Jenkins agents", "displayName: Build agents"))
	add("display name handed on", func(w *World) bool {
		return w.deploy(func(m string) string {
			return strings.Replace(m, "displayName: Jenkins agents", "displayName: Build agents", 1) +
				entry("nuget-feed", "Jenkins agents")
		})
	})
	add("identity renamed", func(w *World) bool {
		return w.signIn("ci-bot", cloud.User) && w.deploy(replaced("build-bot:", "ci-bot:", "identity: build-bot",
			"identity: ci-bot"))
	})
	add("entry moved to another identity", func(w *World) bool {
		w.addUser(otherUser)
		return w.signIn("release-bot", otherUser) && w.deploy(replaced("defaults:",
			"  release-bot: {user: "+otherUser+"}\ndefaults:", "identity: build-bot", "identity: release-bot"))
	})
	add("organization renamed", func(w *World) bool {
		w.Cloud.DevOps.RenameOrganization(cloud.Organization, renamedOrg)
		w.rename(cloud.Organization, renamedOrg)
		return w.deploy(replaced("organization: contoso", "organization: "+renamedOrg))
	})
	add("entry moved to another organization", func(w *World) bool {
		w.Cloud.AddOrganization(otherOrg)
		return w.deploy(replaced("organization: contoso", "organization: "+otherOrg))
	})
	add("entry removed, and put back after two hours", func(w *World) bool {
		before := w.manifestText(0)
		w.later(2*time.Hour, func() { w.deployAll(before) })
		return w.deploy(func(m string) string {
			head, _, _ := strings.Cut(m, "  - name:")
			return head + entry("nuget-feed", "NuGet feed")
		})
	})
	add("overlap shortened", deployed("overlap: 1h", "overlap: 15m"))
	add("overlap lengthened", deployed("overlap: 1h", "overlap: 2h"))
	add("lifetime shortened", func(w *World) bool {
		return w.deploy(replaced("lifetime: 2d", "lifetime: 30h", "lifetime: 24h", "lifetime: 20h"))
	})
	add("lifetime lengthened", func(w *World) bool {
		return w.deploy(replaced("lifetime: 2d", "lifetime: 4d", "lifetime: 24h", "lifetime: 3d"))
	})

	add("user renamed", func(w *World) bool { return w.renameUser() })
	add("user renamed, and the manifest with it", func(w *World) bool {
		return w.renameUser() && w.deploy(replaced("user: "+cloud.User, "user: "+renamedUser))
	})
	add("user disabled for three hours, and signed in again", func(w *World) bool {
		w.disableUser(true)
		w.standing(handsAbsence, false)
		w.later(handsAbsence, func() {
			w.disableUser(false)
			w.signIn(cloud.Identity, w.user())
		})
		return true
	})
	add("user disabled for three hours, and not signed in again", func(w *World) bool {
		w.disableUser(true)
		w.standing(handsAbsence+rotation.Day, false)
		w.later(handsAbsence, func() { w.disableUser(false) })
		return true
	})

	add("vault closed for seven hours", refused(handsOutage, "ForbiddenByFirewall", ""))
	add("role lost for seven hours", refused(handsOutage, "ForbiddenByRbac", keyvault.SetSecret,
		keyvault.UpdateSecret))
	add("role late by five minutes", refused(5*time.Minute, "ForbiddenByRbac", ""))
	add("store denied by a policy for a day", refused(rotation.Day, "ForbiddenByPolicy", keyvault.SetSecret))

	add("deployment", func(w *World) bool { return w.deploy(func(m string) string { return m }) })
	add("an older version's check", func(w *World) bool {
		w.send(`{"command":"reconcile","pat":"` + handled + `","reason":"check","requestedBy":"timer"}`)
		return true
	})
	add("an older version's sweep that orders", func(w *World) bool {
		id, ok := w.patOf(0)
		w.send(`{"command":"reconcile","pat":"` + handled + `","reason":"compromised","revokePrevious":"now",` +
			`"requestedBy":"timer","from":"` + id + `"}`)
		return ok
	})
	add("a message that nobody can read", func(w *World) bool {
		w.send(`{"command":`)
		return true
	})
	return out
}

// ourTags are those that patrol writes.
var ourTags = []string{"CredentialId", "ProviderAddress", "ValidityPeriodDays", "patrol-rotation", "patrol-identity",
	"patrol-previous-version", "patrol-revoke-previous-at", "patrol-announced-at", "patrol-revoked-at", "patrol-facts",
	"patrol-previous", "patrol-reason", "patrol-requested-by", "patrol-operation"}

// handsAtWork is what a World knows of its hands; World.mu guards it.
type handsAtWork struct {
	acting  Mode
	acted   int
	touches []Touch
	renamed map[string]string // users and organizations: the name of today by the first one
	added   []string          // users
}

// handsByName is made once: a plan is asked about each call.
var handsByName = func() map[Mode]Hand {
	out := map[Mode]Hand{}
	for _, h := range Hands() {
		out[h.Name] = h
	}
	return out
}()

func handOf(m Mode) (Hand, bool) {
	h, ok := handsByName[m]
	return h, ok
}

// act lets a hand do what it does, and notes which one it was.
func (w *World) act(h Hand) {
	w.mu.Lock()
	w.acting = h.Name
	w.mu.Unlock()
	if !h.do(w) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.acted++
}

// touch notes what the hand at work has done.
func (w *World) touch(t Touch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t.At, t.Hand = time.Now(), w.acting
	w.touches = append(w.touches, t)
}

// later does something at a later time. It may call services.
func (w *World) later(after time.Duration, do func()) {
	w.ending.Go(func() {
		time.Sleep(after)
		do()
	})
}

// edit edits the version that lies back versions behind the latest one.
func (w *World) edit(back int, change func(*keyvault.Version)) bool {
	vs := w.Cloud.Vault.Versions(handled)
	if len(vs) <= back {
		return false
	}
	_, err := w.Cloud.Vault.Change(handled, vs[len(vs)-1-back].ID, change)
	return err == nil
}

func editLatest(change func(*keyvault.Version)) func(*World) bool {
	return func(w *World) bool { return w.edit(0, change) }
}

func (w *World) disable() bool {
	v, ok := w.Latest(handled)
	if !ok || v.Deleted {
		return false
	}
	w.touch(Touch{Version: v.ID, Disabled: true})
	return w.edit(0, func(v *keyvault.Version) { v.Enabled = false })
}

// put stores a version by hand.
func (w *World) put(v keyvault.Version) bool {
	stored, err := w.Cloud.Vault.Put(v)
	if err != nil {
		return false
	}
	w.touch(Touch{Version: stored.ID})
	return true
}

func putAgain(back int, change func(*keyvault.Version)) func(*World) bool {
	return func(w *World) bool {
		vs := w.Cloud.Vault.Versions(handled)
		if len(vs) <= back {
			return false
		}
		v := vs[len(vs)-1-back]
		v.Tags = maps.Clone(v.Tags)
		change(&v)
		return w.put(v)
	}
}

// putForeign puts another PAT of the same user, which somebody has made by hand.
func (w *World) putForeign(tags map[string]string) bool {
	_, token := w.Cloud.DevOps.Seed(w.organization(), w.user(), "made by hand", "vso.build_execute",
		time.Now().AddDate(0, 0, 20), false)
	return w.put(keyvault.Version{Name: handled, Value: token, Tags: tags})
}

// putOtherVaults puts a secret of another deployment, with its tags, as a promotion to
// production does.
func (w *World) putOtherVaults() bool {
	made := rotation.RotationID(handled, "")
	end := time.Now().AddDate(0, 0, 20)
	id, token := w.Cloud.DevOps.Seed(w.organization(), w.user(), rotation.DisplayName("Jenkins agents", foreignMark,
		made), "vso.build_execute", end, false)
	now := time.Now().UTC().Format(time.RFC3339)
	v, ok := w.Latest(handled)
	return ok && w.put(keyvault.Version{Name: handled, Value: token, Expires: end, Tags: map[string]string{
		"CredentialId": id, "ProviderAddress": v.Tags["ProviderAddress"], "patrol-rotation": made,
		"patrol-identity": cloud.Identity, "patrol-announced-at": now,
		"patrol-facts": "digest=" + rotation.Digest(rotation.NewSecret(token))}})
}

// organization and user are the names of today: a hand may have changed them.
func (w *World) organization() string {
	if w.isRenamed(renamedOrg) {
		return renamedOrg
	}
	return cloud.Organization
}

func (w *World) user() string {
	if w.isRenamed(renamedUser) {
		return renamedUser
	}
	return cloud.User
}

func (w *World) isRenamed(to string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(slices.Collect(maps.Values(w.renamed)), to)
}

// patOf is the PAT that a version holds.
func (w *World) patOf(back int) (id string, ok bool) {
	vs := w.Cloud.Vault.Versions(handled)
	if len(vs) <= back {
		return "", false
	}
	value := strings.TrimSpace(vs[len(vs)-1-back].Value)
	for _, p := range w.Cloud.DevOps.PATs("", "") {
		if p.Token == value {
			return p.AuthorizationID, true
		}
	}
	return "", false
}

func inPortal(change func(*devops.PAT)) func(*World) bool {
	return func(w *World) bool {
		id, ok := w.patOf(0)
		if !ok || !w.Cloud.DevOps.Edit(id, change) {
			return false
		}
		w.touch(Touch{PAT: id})
		return true
	}
}

// deploy starts every instance anew with another manifest.
func (w *World) deploy(change func(string) string) bool {
	w.deployAll(change(w.manifestText(0)))
	return true
}

func (w *World) deployAll(manifest string) {
	w.SetManifest(manifest)
	w.later(0, w.Kill)
}

func deployed(from, to string) func(*World) bool {
	return func(w *World) bool {
		return strings.Contains(w.manifestText(0), from) && w.deploy(replaced(from, to))
	}
}

func replaced(texts ...string) func(string) string {
	return strings.NewReplacer(texts...).Replace
}

// entry is one of a manifest's, of the cloud's own identity.
func entry(name, displayName string) string {
	return "  - {name: " + name + ", identity: build-bot, organization: contoso, displayName: " + displayName +
		", scopes: [vso.build_execute]}\n"
}

func (w *World) addUser(upn string) {
	for _, user := range w.addedUsers() {
		if user == upn {
			return
		}
	}
	w.Cloud.AddUser(upn)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.added = append(w.added, upn)
}

func (w *World) addedUsers() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.added)
}

func (w *World) signIn(identity, upn string) bool {
	return w.Cloud.SignIn(identity, upn) == nil
}

func (w *World) renameUser() bool {
	if w.Cloud.Entra.RenameUser(cloud.User, renamedUser) != nil {
		return false
	}
	w.Cloud.DevOps.RenameUser(cloud.User, renamedUser)
	w.rename(cloud.User, renamedUser)
	return true
}

// rename notes another name of a user or an organization.
func (w *World) rename(from, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.renamed == nil {
		w.renamed = map[string]string{}
	}
	w.renamed[from] = to
}

func (w *World) disableUser(disabled bool) {
	_ = w.Cloud.Entra.DisableUser(w.user(), disabled)
	w.Cloud.DevOps.SetDisabled(w.user(), disabled)
}

// standing notes a refusal that lasts.
func (w *World) standing(lasts time.Duration, closes bool) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disturbances = append(w.disturbances, &Disturbance{At: now, Until: now.Add(lasts), Standing: true,
		Closes: closes})
}

// refused lets the vault refuse operations for a while; an empty name stands for all.
func refused(lasts time.Duration, code string, operations ...string) func(*World) bool {
	return func(w *World) bool {
		w.standing(lasts, slices.Contains(operations, ""))
		w.later(0, func() {
			for _, op := range operations {
				_ = w.Cloud.Injector.Inject(faults.Fault{Service: keyvault.Service, Operation: op, Times: -1,
					Mode: faults.Status, Status: http.StatusForbidden,
					Header: map[string]string{"Content-Type": "application/json"},
					Body:   keyvault.ErrorBody("Forbidden", "refused", code)})
			}
			time.Sleep(lasts)
			w.Cloud.Injector.ClearFaults()
		})
		return true
	}
}

// send puts a message on the command queue that is no person's.
func (w *World) send(body string) {
	w.later(0, func() {
		client, err := w.Cloud.BusClient()
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		defer func() { _ = client.Close(ctx) }()
		sender, err := client.NewSender(cloud.CommandQueue, nil)
		if err != nil {
			return
		}
		session := handled
		_ = sender.SendMessage(ctx, &azservicebus.Message{Body: []byte(body), SessionID: &session,
			MessageID: new("an-older-version-" + rand.Text())}, nil)
	})
}
