package web

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/azure-patrol/patrol/internal/entra"
	"github.com/azure-patrol/patrol/internal/rotation"
)

// view is what an address of the page names: alerts and people link to it.
type view struct {
	PAT    string
	View   string // viewPlan, or empty: the list
	Filter dashboardFilter
	// Confirm is an object id that an operator is to confirm as an identity's: that of
	// the filter.
	Confirm string
	SignIn  string // signInAgain, signInChoose
	// hasKey: the address has a function key, of a bookmark of before.
	hasKey bool
}

const (
	viewPlan = "plan"
	viewList = "list"

	// signInAgain makes the person prove once more who they are; signInChoose asks
	// which account it shall be.
	signInAgain  = "again"
	signInChoose = "choose"
)

func promptOf(signIn string) string {
	switch signIn {
	case signInAgain:
		return entra.ProveAgain
	case signInChoose:
		return entra.ChooseAccount
	}
	return entra.AnyAccount
}

// viewOf reads an address. What it does not know it refuses: a misspelt filter would show
// everything. Forms send empty fields.
func viewOf(q url.Values) (view, *Problem) {
	v := view{}
	f := &v.Filter
	at := map[string]*string{"pat": &v.PAT, "view": &v.View, "confirm": &v.Confirm, "signin": &v.SignIn,
		"state": &f.State, "organization": &f.Organization, "identity": &f.Identity, "kind": &f.Kind,
		"cursor": &f.Cursor, "search": &f.Search}
	var unknown *Problem
	for name, values := range q {
		switch field := at[name]; {
		case isKeyParameter(name):
			v.hasKey = true
		case name == atThisHost: // a sign-in that was sent here before
		case field == nil:
			unknown = badQuery(noPageParameter(name))
		case len(values) != 1:
			unknown = badQuery(name + " may be given once.")
		default:
			*field = strings.TrimSpace(values[0])
		}
	}
	if v.View == viewList {
		v.View = ""
	}
	switch {
	case unknown != nil:
	case v.View != "" && v.View != viewPlan:
		unknown = badQuery("The page has no view of this name.")
	case v.SignIn != "" && v.SignIn != signInAgain && v.SignIn != signInChoose:
		unknown = badQuery("signin must be " + signInAgain + " or " + signInChoose + ".")
	case v.Confirm != "" && (!rotation.IsGUID(v.Confirm) || f.Identity == ""):
		unknown = badQuery("confirm must be an object id, beside an identity.")
	case len(f.Search) > maxSearch:
		unknown = badQuery("The text to search for may have " + strconv.Itoa(maxSearch) + " bytes at most.")
	default:
		unknown = f.check()
	}
	return v, unknown
}

func noPageParameter(name string) string {
	return "The page knows no parameter " + strconv.Quote(clip(name)) + "."
}

// query is the one form of a view's address.
func (v view) query() string {
	q := url.Values{}
	for _, x := range append(v.Filter.Kept(), field{"pat", v.PAT}, field{"view", v.View}, field{"confirm", v.Confirm},
		field{"cursor", v.Filter.Cursor}) {
		if x.Value != "" {
			q.Set(x.Name, x.Value)
		}
	}
	return q.Encode()
}

// addressOfPAT is where the page shows a managed PAT.
func addressOfPAT(name string) string { return addressOf(view{PAT: name}.query()) }

// addressOfFilter is where the page shows what one field finds.
func addressOfFilter(f field) string { return addressOf(url.Values{f.Name: {f.Value}}.Encode()) }
