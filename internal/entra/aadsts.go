package entra

import (
	"strconv"
	"strings"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// Cause is why a sign-in can not be used, as far as a code says it.
type Cause string

// The causes. The empty one is: nothing is wrong.
const (
	UserDisabled        Cause = "user-disabled"
	UserDeleted         Cause = "user-deleted"
	SessionRevoked      Cause = "session-revoked"
	PasswordChanged     Cause = "password-changed"
	Inactivity          Cause = "inactivity"
	InteractionRequired Cause = "interaction-required" // multi-factor authentication, Conditional Access
	ConsentMissing      Cause = "consent-missing"
	AppRegistration     Cause = "app-registration"
	NotSignedIn         Cause = "not-signed-in"
	WrongUser           Cause = "wrong-user"
	WrongTenant         Cause = "wrong-tenant"
	Guest               Cause = "guest"
	UserIDChanged       Cause = "user-id-changed"
	PolicyBlocks        Cause = "policy"
	Unknown             Cause = "unknown"
)

// Codes that patrol makes itself. Those that other packages compare are
// exported.
const (
	CodeNotSignedIn     = string(NotSignedIn)
	CodeUserIDChanged   = string(UserIDChanged)
	CodeUserRenamed     = "user-renamed"          // of a warning: the object id has another name now
	CodeDeclinedScopes  = rotation.DeclinedScopes // consent covers a part of the scopes
	CodeUnknownScope    = rotation.UnknownScope   // one that the sign-in did not ask for
	CodeManagedIdentity = "managed-identity"      // it gives no token

	codeWrongUser   = string(WrongUser)
	codeWrongTenant = string(WrongTenant)
	codeGuest       = string(Guest)
	codeInactivity  = string(Inactivity) // of the warning
	codeNonce       = "nonce-mismatch"
	codeCallback    = "callback"
	codeAnswer      = "entra-answer"
	codeUnreachable = "entra-unreachable"

	codeCredentialWanted = "AADSTS7000218"
)

// meaning is what one of Entra's numbers stands for, and what to do about it.
type meaning struct {
	cause   Cause
	message string
}

// What an operator may meet. Entra's numbers are for people: what happens next
// is decided by the OAuth error, but for a few.
var meanings = map[int]meaning{
	16000: {InteractionRequired, "several accounts are signed in: choose one"},
	50011: {AppRegistration, "the redirect URI is not registered: " +
		"add <PUBLIC_URL>/api/signin/callback to the app registration's platform Web"},
	50014: {Guest, "the account is a guest who has not accepted the invitation: " +
		"use an account of the tenant itself"},
	50020: {Guest, "the account belongs to another tenant: sign in with an account of the tenant itself"},
	50034: {UserDeleted, "the account does not exist in the tenant: " +
		"correct the manifest's user, or create the account"},
	50053: {UserDisabled, "the account is locked after too many attempts: wait or unlock it, then sign in again"},
	50055: {PasswordChanged, "the account's password has expired: change it, then sign in again"},
	50057: {UserDisabled, "the account is disabled: enable it, then sign in again"},
	50058: {InteractionRequired, "nobody is signed in at Entra: sign in again"},
	50072: {InteractionRequired, "the account must enrol in multi-factor authentication: sign in again"},
	50074: {InteractionRequired, "multi-factor authentication is needed: sign in again"},
	50076: {InteractionRequired, "multi-factor authentication is needed: sign in again"},
	50078: {InteractionRequired, "the multi-factor authentication has expired: sign in again"},
	50079: {InteractionRequired, "the account must enrol in multi-factor authentication: sign in again"},
	50097: {InteractionRequired, "Conditional Access wants a known device: " +
		"sign in again on one, or exempt the account"},
	50105: {AppRegistration, "the account is not assigned to the app: " +
		"assign it under Enterprise applications, Users and groups, then sign in again"},
	50125: {PasswordChanged, "a password reset or registration has interrupted the sign-in: " +
		"finish it, then sign in again"},
	50126: {InteractionRequired, "user name or password is wrong: sign in again"},
	50131: {PolicyBlocks, "Conditional Access does not accept the device or the activity: " +
		"an administrator must exempt the account or the app's outbound address"},
	50132: {PasswordChanged, "the account's password has expired or changed: sign in again"},
	50133: {PasswordChanged, "the account's password has changed: sign in again"},
	50140: {InteractionRequired, "Entra asked whether to stay signed in: sign in again"},
	50144: {PasswordChanged, "the account's password in Active Directory has expired: " +
		"change it, then sign in again"},
	50173: {SessionRevoked, "the sign-in was revoked, by an administrator, by the user, or with the password: " +
		"sign in again"},
	50196: {"", "Entra has seen too many requests in a row and asks for a pause"},
	51004: {UserDeleted, "the account is not in the tenant: correct the manifest's user, or create the account"},
	53000: {InteractionRequired, "Conditional Access wants a compliant device: " +
		"sign in on one, or exempt the account"},
	53001: {InteractionRequired, "Conditional Access wants a device that is joined to the domain: " +
		"sign in on one, or exempt the account"},
	53002: {InteractionRequired, "Conditional Access wants an approved app: exempt the account"},
	53003: {InteractionRequired, "Conditional Access blocks the app: " +
		"allow the app's outbound address, or exempt the account"},
	53004: {InteractionRequired, "the account must register for multi-factor authentication in a safe place first"},
	53011: {PolicyBlocks, "the account is blocked because of a risk: " +
		"an administrator must look into it and dismiss the risk, then sign in again"},
	54005: {Unknown, "the sign-in's code was used already: start the sign-in again"},
	65001: {ConsentMissing, "consent is missing: " +
		"grant admin consent to the app registration's permissions, then sign in again"},
	65004: {ConsentMissing, "the consent was declined: sign in again and accept what patrol asks for"},
	65005: {ConsentMissing, "the app registration lacks a permission: " +
		"add vso.pats and vso.pats_manage of Azure DevOps to it, and grant admin consent"},
	70000: {Unknown, "the sign-in is no longer good: sign in again"},
	70008: {Inactivity, "the sign-in has run out: sign in again"},
	70043: {InteractionRequired, "the sign-in has run out by a sign-in frequency policy: " +
		"sign in again on patrol's own page, which such a policy spares, or exempt the account"},
	90002: {AppRegistration, "there is no such tenant: " +
		"correct ENTRA_TENANT_ID, or AZURE_AUTHORITY_HOST for a tenant of another cloud"},
	90033: {"", "Entra has a passing fault"},
	90055: {"", "Entra throttles the requests"},
	90072: {Guest, "the account belongs to another tenant: " +
		"sign out there, and sign in with an account of the tenant itself"},
	90093: {ConsentMissing, "the account may not consent: " +
		"an administrator must grant consent to the app registration's permissions"},
	90094: {ConsentMissing, "an administrator must grant consent to the app registration's permissions"},
	90095: {ConsentMissing, "an administrator must approve the request for consent to the app registration's " +
		"permissions"},
	500014: {AppRegistration, "Azure DevOps is switched off as an application of the tenant: " +
		"enable it under Enterprise applications, or renew its subscription"},
	500133: {AppRegistration, "the app's assertion is outside of its time: check the clock"},
	500011: {AppRegistration, "the tenant does not know Azure DevOps as a resource: " +
		"connect an organization to the tenant"},
	500341: {UserDeleted, "the account was deleted from the tenant: " +
		"restore it, or name another one in the manifest, then sign in"},
	501481: {Unknown, "the sign-in was started in another browser: start it again"},
	530035: {PolicyBlocks, "the tenant's security defaults block the sign-in: use patrol's own page, no code; " +
		"where that is blocked too, an administrator must replace them by Conditional Access policies"},
	530084: {PolicyBlocks, "a token protection policy wants sign-ins bound to a device, which no server has: " +
		"an administrator must exempt the account; a new sign-in does not help"},
	650053: {AppRegistration, "the app registration asks for a permission that does not exist"},
	700016: {AppRegistration, "the tenant has no app registration with this client id: " +
		"correct ENTRA_CLIENT_ID or ENTRA_TENANT_ID"},
	700024: {AppRegistration, "the app's assertion is outside of its time: check the clock"},
	700025: {AppRegistration, "the app registration's platform is a public client, which has no credential: " +
		"use a web redirect URI, or set ENTRA_CLIENT_CREDENTIAL to none"},
	700027: {AppRegistration, "the certificate is not registered for the app, or its key is another: " +
		"upload it to the app registration"},
	700054: {AppRegistration, "the app registration does not allow this kind of sign-in: " +
		"register the redirect URI under the platform Web"},
	700082: {Inactivity, "the sign-in was not used for 90 days: sign in again"},
	700084: {AppRegistration, "the sign-in was made with a single page platform and is over: " +
		"use a web redirect URI, then sign in again"},
	700211: {AppRegistration, "no federated credential of the app registration names this issuer: " +
		"correct its issuer"},
	700212: {AppRegistration, "the federated credential's audience is wrong: " +
		"it must be api://AzureADTokenExchange exactly, or what another cloud has in its place"},
	700213: {AppRegistration, "no federated credential of the app registration names this managed identity: " +
		"correct its subject (the principal id)"},
	1000502: {AppRegistration, "the app's certificate has expired or is not valid yet: " +
		"renew it in Key Vault, and upload it to the app registration"},
	900941: {ConsentMissing, "Entra takes the app for risky: " +
		"an administrator must grant consent to its permissions"},
	7000112: {AppRegistration, "the app registration is disabled in the tenant: " +
		"enable it under Enterprise applications"},
	7000215: {AppRegistration, "the app's secret is wrong"},
	7000222: {AppRegistration, "the app's secret has expired"},
	7000218: {AppRegistration, "the app registration wants a credential: " +
		"set ENTRA_CLIENT_CREDENTIAL to managed-identity or certificate; for a sign-in from a command line, " +
		"allow public client flows"},
}

// decidedByNumber are numbers that come with an OAuth error which says something else:
// most of them as a bad grant, though no new sign-in would mend them.
var decidedByNumber = map[int]rotation.Class{
	50196:   rotation.Throttled,
	90002:   rotation.Configuration,
	90055:   rotation.Throttled,
	500014:  rotation.Configuration,
	530035:  rotation.Policy,
	530084:  rotation.Policy,
	1000502: rotation.Configuration,
}

var ownMeanings = map[string]meaning{
	CodeNotSignedIn: {NotSignedIn, "nobody has signed in"},
	codeWrongUser: {WrongUser, "another user than the manifest's has signed in: " +
		"sign in as the user that the manifest names"},
	codeWrongTenant: {WrongTenant, "the account is of another tenant than ENTRA_TENANT_ID: " +
		"sign in with an account of that tenant"},
	codeGuest: {Guest, "the account is a guest of the tenant: sign in with an account of the tenant itself"},
	CodeUserIDChanged: {UserIDChanged, "the account has another object id than the one that signed in before: " +
		"sign in again and confirm the new one"},
	CodeDeclinedScopes: {ConsentMissing, "Entra grants fewer permissions than patrol needs: " +
		"grant admin consent to all of them"},
}

// number is the AADSTS number of a code; 0 if it is none.
func number(code string) int {
	digits, ok := strings.CutPrefix(code, "AADSTS")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil {
		return 0
	}
	return n
}

func meaningOf(code string) meaning {
	if m, ok := ownMeanings[code]; ok {
		return m
	}
	if m, ok := meanings[number(code)]; ok {
		return m
	}
	return meaning{cause: Unknown}
}

// messageFor says why a person must sign in, and what to do.
func messageFor(code string) string {
	if m := meaningOf(code).message; m != "" {
		return m
	}
	return "the sign-in is no longer good: sign in again"
}

// causeOf finds the cause of a failure. What passes by itself has none.
func causeOf(e *rotation.Error) Cause {
	switch m := meaningOf(e.Code); {
	case m.cause != "" && m.cause != Unknown:
		return m.cause
	case e.Class == rotation.SignIn:
		return Unknown
	case e.Class == rotation.Configuration:
		return AppRegistration
	case e.Class == rotation.Policy:
		return PolicyBlocks
	}
	return ""
}
