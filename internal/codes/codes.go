// Package codes is the table of all codes by which people and programs meet a
// failure of patrol: in a problem of the API, an event, a log line, a page, or the
// answer of Health. docs/codes.md is made from it.
//
// It explains and decides nothing. A code that some rule compares is a constant of
// internal/rotation, or of the package that makes it; the table takes rotation's words
// from there and spells out the rest, and a test over the syntax tree of the module
// holds both together: no producer uses a code that is not here, and nothing is here
// that no producer uses. It imports the standard library and rotation, and must not
// know how a code comes about.
package codes

import "github.com/azure-patrol/patrol/internal/rotation"

//go:generate go run ./page ../../docs/codes.md

// Group is one part of the table.
type Group struct {
	Title string
	Where string // in which answers, events and lines these codes stand
	// Entries are in the order in which a reader looks for them.
	Entries []Entry
}

// Entry is one code, or several that ask for the same.
type Entry struct {
	Codes []string
	// Pattern matches the whole of every code of a family, whose one Code is then its
	// form for people. Only what a service says may come from a family: patrol's
	// own codes are spelled out.
	Pattern string
	// Service: a service has made up the word, and patrol hands it on.
	Service bool
	Means   string
	Do      string
}

// Table is every code.
func Table() []Group {
	return []Group{
		api(), rotations(), messages(), azureDevOps(), signIns(), keyVault(), state(), revocations(), commandLine(),
		health(),
	}
}

func code(code, means, do string) Entry { return Entry{Codes: []string{code}, Means: means, Do: do} }

// said is a word of a service.
func said(means, do string, codes ...string) Entry {
	return Entry{Codes: codes, Service: true, Means: means, Do: do}
}

func family(form, pattern, means, do string) Entry {
	return Entry{Codes: []string{form}, Pattern: pattern, Service: true, Means: means, Do: do}
}

func api() Group {
	return Group{Title: "Answers of the API",
		Where: "`type` of a problem, as `urn:patrol:problem:<code>`. " +
			"`code` beside it is a service's failure: see the other tables.",
		Entries: []Entry{
			code("bad-request",
				"The query, a header or the body cannot be used. `detail` says what of it.",
				"Correct the request."),
			code("too-large", "The body is longer than 64 KiB.", "Send a smaller one."),
			code("media-type", "The body is not sent as JSON in UTF-8, uncompressed. `detail` says what of it.",
				"Send `Content-Type: application/json`, and no `Content-Encoding`."),
			code("cross-site", "A page of another site has made a browser send the request.",
				"Call the API from a program, or use patrol's own page."),
			code("too-many-requests", "Too many callers without a key, at once: sign-ins are bounded in number.",
				"Try again after `Retry-After`."),
			code("unknown-incident",
				"No incident of this id was kept, and no version of a secret has an order of it.",
				"Check the id. Without `STATE_URL` an incident is known as long as its PATs are not rotated again."),
			code("not-found", "No function has this path and method.", "See openapi.yaml for the paths."),
			code("busy",
				"The same act with the same `Idempotency-Key` is under way.",
				"Send it again after `Retry-After`."),
			code("idempotency-key-reused",
				"The `Idempotency-Key` was sent with another function, target or body before.",
				"Use a new key for a new act."),
			code("confirmation",
				"The confirmation is too old, or belongs to another act, plan or caller.",
				"Ask for the plan or the form again, and send its confirmation."),
			code("internal", "patrol itself has failed.", "See the log at that time, and report it."),
			code("configuration",
				"Settings or the manifest cannot be used, or the sign-in is not set up. `errors` says what to do for "+
					"each.",
				"Correct them, and deploy or restart the app."),
			code("upstream",
				"A service did not answer as it should. `class`, `code` and `activityId` say which failure it was.",
				"Look the `code` up here. Of class transient: try again in a minute."),
			code("throttled", "A service asks for a pause.", "Try again after `Retry-After`."),
			code("sign-in-required",
				"Nothing can be done for the identity before its user signs in. `code` is the reason.",
				"Let the user open `signInUrl`."),
			code("sign-in-refused",
				"Entra or patrol has refused the sign-in. The page shows the reason and its code.",
				"Look the code up under sign-in."),
			code("sign-in-callback",
				"The address lacks what Entra sends to the end of a sign-in, or has it twice.",
				"Start the sign-in again with its link."),
			code("sign-in-flow",
				"This browser has not begun the sign-in that came back, or it came back twice or after ten minutes.",
				"Start again with the link, in one browser."),
			code("unknown-identity",
				"The manifest has no identity of this name.",
				"Correct the link, or add the identity to the manifest."),
			code("unknown-pat",
				"The manifest has no PAT of this name.",
				"Correct the name, or add the PAT to the manifest."),
			code("unknown-token",
				"No identity and organization that was asked has or had a PAT with this authorization id.",
				"Check the id. Its owner may be a user who has not signed in: see revocations."),
			code("not-provisioned",
				"The vault has no such secret yet.",
				"Wait for the first rotation, or order it."),
			code("not-ours",
				"patrol has neither made nor adopted the secret, "+
					"or it holds a PAT of another identity or organization than the manifest names.",
				"Let patrol adopt or rotate it first."),
			code("bad-valid-to",
				"The end is past, more than 365 days ahead, or earlier than the PAT's own.",
				"Ask for another end."),
			code("extension-refused",
				"Azure DevOps or a policy of the tenant refuses the later end. `detail` has its code.",
				"Rotate the PAT instead, or change the policy."),
			code("pat-gone",
				"Azure DevOps does not know the current PAT as active any more.",
				"Rotate it now; the next sweep does it too."),
			code("pat-replaced",
				"The PAT was replaced while the request was under way.",
				"Look at the PAT again, and repeat the request if it still makes sense."),
			code("nothing-replaced",
				"No replaced PAT of this name is in its overlap.",
				"Nothing: it has ended, or the current PAT is the first."),
			code("no-mass-change",
				"No mass change of that identity's PATs in that organization waits for anybody.",
				"Nothing: it is over, or has been accepted. `GET /api/pats` shows what waits."),
			code("ordered-to-end",
				"Somebody has ordered that the replaced PAT ends at once. That cannot be taken back.",
				"Rotate again, if readers need another PAT."),
			code("pat-in-use",
				"A secret holds this PAT: its readers would be left with a dead one.",
				`Rotate it with revokePrevious "now", or use force.`),
			code("no-administrator",
				"No identity of the manifest is marked `administrator: true`.",
				"Mark one, deploy, and let its user sign in."),
			code("not-administrator",
				"The identity's user may not administer the organization's tokens.",
				"Make the user a Project Collection Administrator, or name another identity."),
			code("unknown-member",
				"Azure DevOps knows no such user or organization.",
				"Correct the names in the request."),
			code("plan-changed",
				"The PATs are not those that were confirmed. The answer holds the plan of now.",
				"Read it, and send its confirmation."),
			code("revocation-incomplete",
				"Not everything was revoked. `result` says what is left.",
				"Send the same request with the same confirmation again: it goes on where it stopped."),
		}}
}

func rotations() Group {
	return Group{Title: "Rotations and sweeps",
		Where: "`patrol.pat.rotation-failed`, `patrol.check.incomplete`, `failing` of the status page, " +
			"the history of a PAT, the log.",
		Entries: []Entry{
			code("ambiguous-adoption",
				"Several active PATs bear the declared name: patrol cannot tell which one the secret holds.",
				"Write `adopt: <authorization id>` of the right one into the manifest; the event lists them."),
			code(rotation.UnknownEntry,
				"For a day a command has named a PAT that no manifest in force has. It was completed.",
				"Add the PAT, or stop whoever sends the command."),
			code(rotation.StillHeld,
				"A PAT is due to end, and the latest version of another secret, or the same one again, holds it. It "+
					"is kept while that is so: its readers would be left with a dead one.",
				"Put another value into that secret, or delete it. If the PAT must end all the same, order a rotation "+
					"with revokePrevious now, or revoke the PAT by force."),
			code(rotation.TagsFull,
				"The latest version of the secret has so many tags of others that patrol's do not fit beside them. "+
					"Nothing is created before there is room, unless the PAT is about to end or is leaked.",
				"Take tags off the latest version: six of others fit."),
			code(rotation.NotAPAT,
				"The secret of the entry's name holds something that has not the form of a PAT. It is neither sent "+
					"anywhere nor overwritten.",
				"Give the entry another name, or write `adopt: replace` to let a new PAT take the place of the value."),
			code(rotation.AdoptUnknown,
				"`adopt` names a PAT that the entry's identity does not have in the organization, or not any more.",
				"Correct `adopt`, or take it out."),
			code(rotation.Unexpected,
				"A failure that nobody has given a code.",
				"See the handler's log at that time. If it stays, report it."),
			code(rotation.ManifestConflict,
				"The manifest asks for what the PAT before had until patrol replaced it within the last day: two "+
					"manifests may be in force. Or a person has restored the PAT, and the manifest asks for another "+
					"one. patrol leaves it as it is.",
				"See that all instances run one deployment. If it is meant, order a rotation."),
			code(rotation.MassChangeWaits,
				"More than three PATs of an identity in an organization, and more than a third of them, are gone or "+
					"not what the manifest asks for, all at once. patrol waits before it replaces them; orders and "+
					"due rotations go on.",
				"Find out what has happened. If it is meant: `POST /api/check` with the event's id as "+
					"`acceptMassChange`."),
			code(rotation.ValuesRefused,
				"The organization refuses the value of every PAT of an identity that was tried, although it lists "+
					"them as active. None is replaced for a day, except by an order.",
				"Check the organization's policies on PATs, and that the user has signed in within 90 days."),
			code(rotation.StillThrottled,
				"Azure DevOps has throttled the identity for more than an hour.",
				"See what else uses the identity. Fewer PATs for one identity help, and so does a longer `lifetime`."),
			code("overtaken",
				"Another instance has rotated the PAT meanwhile. The new PAT of this one was revoked.",
				"Nothing."),
			code("no-token",
				"Azure DevOps has made a PAT and answered without its token. The PAT was revoked.",
				"If it happens again, ask Azure's support with the activity id."),
			code("no-life",
				"Azure DevOps gave the PAT no life: its end is now or past. The PAT was revoked.",
				"Check the tenant's policy on the life of PATs."),
			code("other-scopes",
				"Azure DevOps gave other scopes than the manifest asks for. The PAT was revoked.",
				"Write the scopes that it gives into the manifest."),
			code("other-bearer",
				"The new PAT belongs to another user than the PATs before it. It was revoked.",
				"See who is signed in as the identity, and sign in as the user whom the manifest names."),
			code("owner-gone",
				"A replaced PAT cannot be revoked: the user who made it has not signed in, or another one has since.",
				"Let its user sign in, or let an administrator revoke the PAT; it ends by itself at the time that the "+
					"message names."),
			code(rotation.OtherUser,
				"A replaced PAT cannot be revoked: another user has signed in as the identity since it was made.",
				"Let the user who made it sign in, or let an administrator revoke the PAT."),
			code("deadline",
				"The work on a PAT reached its own limit of four minutes. What was begun is finished by the next "+
					"attempt.",
				"Nothing, unless it comes back: then see which service is slow."),
			code("canceled", "The work on a PAT was cut short, by the end of its process as a rule.", "Nothing."),
			code("no-rest",
				"After 64 steps there was still something to do. This is a fault of patrol.",
				"Report it, with the log of this PAT."),
		}}
}

func messages() Group {
	return Group{Title: "Messages",
		Where: "`patrol.pat.rotation-failed` with step `receive` or `dead-letter`, and the log.",
		Entries: []Entry{
			code("not-a-command",
				"A message on the command queue is no command. It was completed.",
				"Find out who sent it; the message id is in the event. docs/state.md has the form of a command."),
			code("crash-loop",
				"The handler ended each time it worked on this command.",
				"See the handler's log; report it. The next sweep looks at the PAT again."),
			said("The Functions host has delivered a command ten times, and each time failed.",
				"See the handler's log. The next sweep looks at the PAT again.",
				"MaxDeliveryCountExceeded"),
			said("A command has waited on the queue for longer than it may live.",
				"See whether the app runs. The next sweep looks at the PAT again.",
				"TTLExpiredException"),
			family("<dead-letter reason>", `[^\s].*`,
				"Service Bus, or whoever moved the command to the dead-letter queue, gives this reason.",
				"See Service Bus' documentation of dead letters."),
			code("unknown",
				"A command is in the dead-letter queue, and its message does not say why.",
				"See the handler's log. The next sweep looks at the PAT again."),
			code("service-bus-connection",
				"The Service Bus connection setting cannot be used.",
				"Set `ServiceBusConnection__fullyQualifiedNamespace` to the host of the namespace, or "+
					"`ServiceBusConnection` to a connection string."),
			code("service-bus",
				"Service Bus could not be reached, or did not answer in time.",
				"Nothing: it is tried again. If it stays, check the namespace, its firewall and private endpoints."),
			said("Service Bus refuses the app.",
				"Give the app's managed identity the role Azure Service Bus Data Sender on the queue and the topic.",
				"service-bus-unauthorized"),
			said("The namespace has no such queue or topic.",
				"Make it (the templates do), or correct `COMMAND_QUEUE` or `EVENT_TOPIC`.",
				"service-bus-notfound"),
			said("The connection to Service Bus broke, or a call took too long.",
				"Nothing: it is tried again.",
				"service-bus-connlost", "service-bus-timeout", "service-bus-closed", "service-bus-locklost"),
			family("service-bus-<code>", `service-bus-[a-z]+`,
				"Another failure, by the name that Azure's client gives it.",
				"Nothing, unless it stays."),
			code("message-too-large",
				"An event or command is larger than the namespace permits.",
				"Report it: patrol's messages are far below the limit of any tier."),
		}}
}

func azureDevOps() Group {
	return Group{Title: "Azure DevOps",
		Where: "`code` of problems, events, the status page and log lines. Words in camelCase and numbers are Azure " +
			"DevOps' own.",
		Entries: []Entry{
			code(rotation.TokenRefused,
				"The organization does not accept the token that was to be proved. A new PAT may need seconds to be "+
					"known everywhere.",
				"Nothing at first. If it stays: check the organization's policies on PATs, and that the user is a "+
					"member."),
			code("anonymous",
				"The organization let the token in as an anonymous user, so it does not accept it.",
				"Check the organization's policies on PATs."),
			code("no-bearer-token",
				"The identity's access token cannot be had.",
				"See the sign-in's own line in the log, and its code."),
			code("sign-in-page",
				"Azure DevOps answered with its sign-in page.",
				"Nothing at first. If it stays: check that the user is a member of the organization."),
			code("paused",
				"Azure DevOps has asked this identity to slow down, for longer than the call can wait.",
				"Nothing: it is tried again then. Fewer PATs for one identity help, and so does a longer `lifetime`."),
			code("cancelled", "patrol gave up waiting for an answer.", "Nothing: it is tried again."),
			code("timed-out", "Azure DevOps did not answer in time.", "Nothing: it is tried again."),
			code("connection-lost",
				"The connection broke while an answer was outstanding.",
				"Nothing: it is looked at again before anything else is done."),
			code("unreachable",
				"Azure DevOps cannot be reached.",
				"If it stays: check name resolution, routes and firewalls of the app's network."),
			code("organization-offline", "The organization is off line: it is being moved, or maintained.", "Wait."),
			code("bad-answer",
				"The answer makes no sense.",
				"If it stays: look for a proxy in between; report it with the activity id."),
			code("endless-list", "A list does not come to an end.", "Report it with the activity id."),
			code("still-active",
				"Azure DevOps does not find the PAT that was to be revoked, and lists it as active.",
				"Nothing: it is tried again."),
			code("bad-request",
				"A request could not be made: an organization's name with characters that no address can have.",
				"Correct the manifest."),
			code("batch-size",
				"A revocation names no PAT, or more than one call may.",
				"Report it: patrol splits them by itself."),
			code("bad-rule", "A revocation rule has no scopes or no date.", "Correct the request."),
			said("The PAT has run out.", "Rotate it.", rotation.ExpiredPAT),
			said("The tenant forbids PATs that live so long.",
				"Shorten `lifetime`, or exempt the user from the policy.",
				"patLifespanPolicyViolation"),
			said("The tenant forbids PATs with full access.",
				"Write scopes into the manifest that do not include `app_token`.",
				"fullScopePatPolicyViolation"),
			said("PATs for all organizations are forbidden.",
				"patrol asks for none; report it.",
				"globalPatPolicyViolation", "globalPATCreationBlocked"),
			said("The organization does not let the user make PATs.",
				"Put the user on the policy's list of exceptions.",
				"disablePatCreationPolicyViolation"),
			said("Azure DevOps denies the identity this.",
				"Check the user's access level and membership of the organization.",
				"accessDenied"),
			said("Azure DevOps does not take the display name.",
				"Shorten `displayName` in the manifest.",
				"displayNameRequired", "invalidDisplayName"),
			said("Azure DevOps does not take the end: it is past, or more than a year ahead.",
				"Shorten `lifetime`.",
				rotation.RefusedEnd),
			said("Azure DevOps does not take the scopes.", "Correct `scopes` in the manifest.", "invalidScope"),
			said("The identity is not a user who can have PATs.",
				"Name a user account of the tenant in the manifest.",
				"userIdRequired", "invalidUserId", "invalidUserType"),
			said("Azure DevOps does not take the application that the identity signed in to.",
				"Check `ENTRA_CLIENT_ID` and the permissions of the registration.",
				"invalidClient", "invalidClientType", "invalidClientId"),
			said("Azure DevOps does not take the organization.",
				"Correct `organization` in the manifest.",
				"invalidTargetAccounts"),
			said("Azure DevOps cannot read its own policies.",
				"Nothing: it is tried again.",
				"failedToReadTenantPolicy", "failedToReadOrgPolicy"),
			said("Azure DevOps failed half-way: the PAT may exist.",
				"Nothing: it is looked at again before anything else is done.",
				"failedToIssueAccessToken", "failedToUpdateAccessToken"),
			said("Azure DevOps knows no such PAT.",
				"Nothing as a rule: it has ended.",
				"hostAuthorizationNotFound", "authorizationNotFound", "tokenNotFound", "invalidAuthorizationId",
				"invalidToken"),
			said("Azure DevOps does not take the request.",
				"Report it with the activity id.",
				"sourceNotSupported", "invalidSource", "invalidSourceIP", "duplicateHash", "sshPolicyDisabled",
				"invalidTokenType", "invalidAudience", "invalidSubject", "deploymentHostNotSupported"),
			family("<patTokenError>", `[A-Za-z][0-9A-Za-z]{0,49}`,
				"Another of Azure DevOps' words for why an operation on a PAT was refused. One that ends in Violation "+
					"or Blocked, or has Policy in it, is a policy.",
				"See Azure DevOps' documentation of `SessionTokenError`."),
			family("TF<number>, VS<number>", `(TF|VS)[0-9]{5,8}`,
				"The number of Azure DevOps' own message.",
				"Look the number up. With 401: check that the user is a member of the organization."),
			family("<...>Exception", `[A-Za-z][0-9A-Za-z]*Exception`,
				"The type of Azure DevOps' error, where its message has no number.",
				"See the message beside it; the activity id is for Azure's support."),
			family("http-<status>", `http-[0-9]{3}`,
				"The HTTP status of an answer that says no more: of Azure DevOps, or of Entra.",
				"See the message beside it."),
		}}
}

func signIns() Group {
	return Group{Title: "Sign-in and Entra",
		Where: "`patrol.identity.sign-in-required` and `-expiring`, the status page, the sign-in pages (as *Code*), " +
			"problems, the log.",
		Entries: []Entry{
			code("not-signed-in",
				"Nobody has signed in, or the stored sign-in is not one of this app registration.",
				"Let the identity's user sign in."),
			code("inactivity",
				"A warning: the sign-in has not been renewed for 76 days, and ends 14 days later.",
				"See why the sweeps do not run or cannot refresh it; sign in again."),
			code("wrong-user",
				"Another user than the manifest's has signed in.",
				"Sign in as the user whom the manifest names. If the manifest is wrong, correct it: then no sign-in "+
					"is needed."),
			code("wrong-tenant",
				"The account is of another tenant than `ENTRA_TENANT_ID`.",
				"Sign in with an account of that tenant."),
			code("guest", "The account is a guest of the tenant.", "Sign in with an account of the tenant itself."),
			code("user-id-changed",
				"The account has another object id than the one that signed in before: "+
					"it was made anew under the same name.",
				"Make sure that this is meant, and sign in again with `confirm=<object id>`, as the page says."),
			code("user-renamed",
				"A warning: the user has another name than before, and the same object id. patrol goes on.",
				"Write the new name as the identity's `user` in the manifest, where it has the one before."),
			code("nonce-mismatch", "The answer of Entra belongs to another sign-in.", "Start the sign-in again."),
			code("callback", "What came back is no answer of Entra to a sign-in.", "Start the sign-in again."),
			code("refused",
				"Entra has refused the sign-in without a word that can be shown.",
				"Start the sign-in again."),
			code(rotation.DeclinedScopes,
				"Entra grants fewer permissions than patrol needs.",
				"Grant admin consent to all permissions of the app registration, then sign in again."),
			code(rotation.UnknownIdentity,
				"The manifest has no identity of this name.",
				"Correct the name, or add the identity."),
			code(rotation.UnknownScope,
				"The sign-in does not cover a permission that was asked for.",
				"Mark the identity `administrator: true` if it shall administer, and sign in again."),
			code("sign-in-settings",
				"The settings `ENTRA_*` cannot be used together.",
				"The message lists what is wrong."),
			code("certificate",
				"The certificate that `ENTRA_CERTIFICATE` names cannot be used.",
				"It must be an RSA certificate with an exportable key, in PEM or PKCS #12."),
			code("managed-identity",
				"The managed identity gives no token with which the app proves itself to Entra.",
				"Check that `AZURE_CLIENT_ID` names an identity that is assigned to the app."),
			code("entra-answer", "Entra's answer cannot be read.", "Look for a proxy in between."),
			code("entra-unreachable",
				"Entra cannot be reached.",
				"Nothing: it is tried again. If it stays: check the app's network."),
			code("internal", "An unexpected failure during a sign-in.", "See the log at that time, and report it."),
			family("AADSTS<number>", `AADSTS[0-9]{1,9}`,
				"Entra's number for why it refused.",
				"See the table of Entra's numbers below."),
			family("<OAuth error>", `[a-z0-9_]{1,64}`,
				"OAuth's word for a refusal without a number: `invalid_grant` (sign in again), `access_denied` (the "+
					"sign-in was cancelled), `invalid_client`, `unauthorized_client` (check the app registration).",
				"See the message beside it."),
		}}
}

func keyVault() Group {
	return Group{Title: "Key Vault",
		Where: "`code` of problems, events, the status page and log lines. " +
			"The message has Key Vault's own status and code.",
		Entries: []Entry{
			code("vault-url",
				"What answers at `KEY_VAULT_URL` is no Key Vault, or the setting is no address of one.",
				"Correct the setting."),
			code(rotation.VaultCredential,
				"The app's identity gets no token for the vault.",
				"Check `AZURE_CLIENT_ID`, and that the managed identity is assigned to the app."),
			code("vault-client",
				"The client for the vault could not be made.",
				"Report it with the handler's first log lines."),
			code(rotation.VaultUnauthorized,
				"The vault does not accept the app's token.",
				"The vault and the managed identity must belong to the same tenant."),
			code(rotation.VaultForbidden,
				"The vault refuses the app.",
				"Give its managed identity the role Key Vault Secrets Officer on the vault; a new role takes minutes "+
					"to work."),
			code("vault-firewall",
				"The vault's firewall refuses the app.",
				"Let the app's subnet in, or use a private endpoint."),
			code("vault-disabled", "The latest version is disabled.", "Enable it."),
			code("vault-throttled",
				"The vault asks to slow down.",
				"Nothing: it is tried again. If it stays: see who else uses the vault."),
			code(rotation.VaultConflict,
				"The secret is being deleted or recovered, or its latest version keeps changing.",
				"Nothing: it is tried again."),
			code("vault-unavailable",
				"The vault could not be reached, or did not answer properly.",
				"Nothing: it is tried again. If it stays: check the app's network."),
			code("vault-unsettled",
				"The answer to a store was lost, and then the vault refused: whether the version exists is not known.",
				"Nothing: it is looked at again before anything else is done."),
			code("vault-answer",
				"The vault's answer cannot be understood.",
				"Look for a proxy in between; report it with the activity id."),
			code("vault-rejected",
				"The vault rejects the request, for the reason in the message.",
				"Follow the message."),
			code("vault-tags",
				"There is no room for patrol's tags, or a tag is too long: a secret has 15 tags of 256 characters.",
				"Remove or shorten tags that are not patrol's; the message says how many."),
			code("vault-name",
				"A secret's name has other characters than letters, digits and hyphens, or more than 127.",
				"Correct the name in the manifest."),
			code("vault-value", "A value is empty, or longer than 25,600 bytes.", "Report it."),
			code("vault-version", "A version to update was not named.", "Report it."),
		}}
}

func state() Group {
	return Group{Title: "State blobs",
		Where: "`code` of problems, events, the status page and log lines, about the container that `STATE_URL` " +
			"names. patrol rotates all the same; what other processes know is shown as not known. " +
			"The message has the storage account's own status and code.",
		Entries: []Entry{
			code("state-off",
				"`STATE_URL` is not set.",
				"Set it to the address of a blob container; our templates do."),
			code("state-url",
				"What answers at `STATE_URL` is no blob container, there is no storage account of this name, or the "+
					"setting is no address of one.",
				"Correct the setting. In a private network, check the DNS zone for blobs."),
			code("state-container", "The storage account has no such container.", "Create it, or correct `STATE_URL`."),
			code("state-forbidden",
				"The storage account refuses the app.",
				"Give its managed identity the role Storage Blob Data Contributor on the container; a new role takes "+
					"minutes to work."),
			code("state-network",
				"The storage account's network rules refuse the app.",
				"Let the app's subnet in, or use a private endpoint."),
			code("state-unauthorized",
				"The storage account does not accept the app's token.",
				"The account and the managed identity must belong to the same tenant."),
			code("state-credential",
				"The app's identity gets no token for the storage account.",
				"Check `AZURE_CLIENT_ID`, and that the managed identity is assigned to the app."),
			code("state-client",
				"The client for the storage account could not be made.",
				"Report it with the handler's first log lines."),
			code("state-busy",
				"The storage account asks for a pause.",
				"Nothing: it is tried again. If it stays: see who else uses the account."),
			code("state-unavailable",
				"The storage account could not be reached, or did not answer properly.",
				"Nothing: it is tried again. If it stays: check the app's network."),
			code("state-answer",
				"The storage account's answer cannot be understood.",
				"Look for a proxy in between; report it with the activity id."),
			code("state-rejected",
				"The storage account rejects the request, for the reason in the message.",
				"Follow the message."),
			code("state-content",
				"A blob of the container holds something that patrol does not write there, or what was to be written "+
					"is not whole.",
				"Delete the blob that the message names. If it names none: report it."),
			code("state-size",
				"A blob is larger than the state's blobs may be.",
				"Delete it if patrol has not written it; report it otherwise."),
			code("state-key", "A blob's name has characters that the state does not use.", "Report it."),
		}}
}

func revocations() Group {
	return Group{Title: "Revocations by an administrator",
		Where: "`code` of the problems of `POST revocations` and of their audit lines.",
		Entries: []Entry{
			code("invalid-revocation", "What was asked for cannot be planned.", "Follow the message."),
			code("confirmation-missing", "The act needs the confirmation of its plan.", "Ask for the plan first."),
			code("confirmation-invalid",
				"The confirmation was not given by this patrol, or belongs to another request.",
				"Ask for the plan again."),
			code("confirmation-expired", "The confirmation is older than 15 minutes.", "Ask for the plan again."),
			code("plan-changed",
				"The PATs are not those that were confirmed.",
				"Read the plan of now, and confirm that."),
			code("not-administrator",
				"The identity's user may not administer tokens, or not read the audit log, in the organization.",
				"Make it a Project Collection Administrator, or name another identity."),
			code("administration-scopes-missing",
				"The identity's sign-in does not cover administration.",
				"Mark it `administrator: true`, grant the permissions to the app registration, and sign in again."),
			code("user-unknown",
				"Azure DevOps knows no such user in the organization.",
				"Name the user by principal name, mail address or descriptor."),
			code("organization-unknown", "Azure DevOps knows no such organization.", "Correct the name."),
			code("revocation-incomplete",
				"Not everything was revoked; the result says what is left.",
				"Send the request with the same confirmation again."),
		}}
}

func commandLine() Group {
	return Group{Title: "On an operator's machine",
		Where: "What `handler plan` and `handler sign-in` print.",
		Entries: []Entry{
			code("not-listed",
				"The PATs of an identity cannot be listed from here: only the app can use its sign-in.",
				"Read the plan as what the vault alone knows; `POST check?dryRun=true` on the app has all of it."),
			code("not-signed-in", "Nobody has signed in as this identity.", "Let its user sign in."),
			code("not-a-public-client",
				"A device code is for public clients only.",
				"Set `ENTRA_CLIENT_CREDENTIAL` to `none` for this command, or sign in on the app's page."),
			code("authorization-declined", "The sign-in was declined on the other device.", "Start it again."),
			code("code-expired", "Nobody has typed in the device code in time.", "Start it again."),
		}}
}

func health() Group {
	return Group{Title: "Health",
		Where: "`status` in the answer of `GET health`. The answer has this one word and never a detail.",
		Entries: []Entry{
			code("ok", "patrol can work. Answered with 200; the others with 503.", "Nothing."),
			code("sign-in required",
				"A person has to sign in for an identity.",
				"`GET status` says for which one, why, and where."),
			code("configuration",
				"Settings or the manifest cannot be used.",
				"Any function with a key answers with the list."),
			code("degraded",
				"The last sweep met a refusal that does not pass by itself, or one that may pass has lasted for an "+
					"hour, or no sweep has ended for two intervals of `CHECK_SCHEDULE`, or the vault or the state "+
					"cannot be read.",
				"`GET status` says what, since when and why: `troubles`, `organizations`, `lastSweep`, `state`."),
		}}
}
