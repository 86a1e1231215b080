package entra

import (
	"maps"
	"slices"
	"strings"
)

// audiences are what the token of a managed identity must be for, so that an authority
// takes it as an app's credential. Each of Microsoft's clouds has its own. The map is
// never written to.
var audiences = map[string]string{
	"login.microsoftonline.com":        publicAudience,
	"login.microsoft.com":              publicAudience,
	"login.windows.net":                publicAudience,
	"login.microsoftonline.us":         "api://AzureADTokenExchangeUSGov",
	"login.chinacloudapi.cn":           "api://AzureADTokenExchangeChina",
	"login.partner.microsoftonline.cn": "api://AzureADTokenExchangeChina",
}

const publicAudience = "api://AzureADTokenExchange"

// ExchangeAudience is the audience of the token that an authority, named by its host,
// exchanges; known is false if there is no knowing it.
func ExchangeAudience(authorityHost string) (audience string, known bool) {
	audience, known = audiences[strings.ToLower(authorityHost)]
	return audience, known
}

// AuthorityHosts are the authorities whose audience is known, sorted.
func AuthorityHosts() []string { return slices.Sorted(maps.Keys(audiences)) }
