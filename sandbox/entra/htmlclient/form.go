package htmlclient

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// Form is a form of a page.
type Form struct {
	Action string
	Method string     // GET or POST
	Fields url.Values // what is sent if nothing is filled in: no button
	// Buttons are the values of its named buttons, by name.
	Buttons url.Values
	// Inputs are the names of fields that a person fills in.
	Inputs []string
}

var (
	tags = regexp.MustCompile(`(?is)<!--.*?-->|<script\b.*?</script>|` +
		`<(/?)(form|input|button|select|option|textarea)\b((?:[^>"']|"[^"]*"|'[^']*')*)>`)
	attributes = regexp.MustCompile(`(?s)([a-zA-Z][a-zA-Z0-9-]*)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+)))?`)
)

// Forms reads the forms of a page.
func Forms(page string) []Form {
	var (
		out    []Form
		form   *Form
		choice string // name of the open select
		chosen bool
	)
	found := tags.FindAllStringSubmatchIndex(page, -1)
	for n, m := range found {
		if m[4] < 0 { // a comment or a script
			continue
		}
		closing, tag := m[3] > m[2], strings.ToLower(page[m[4]:m[5]])
		a := attributesOf(page[m[6]:m[7]])
		text := page[m[1]:]
		if n+1 < len(found) {
			text = page[m[1]:found[n+1][0]]
		}
		if cut := strings.IndexByte(text, '<'); cut >= 0 {
			text = text[:cut]
		}
		text = strings.TrimSpace(html.UnescapeString(text))
		if tag == "form" {
			form, choice = nil, ""
			if !closing {
				method := http.MethodGet
				if strings.EqualFold(a["method"], "post") {
					method = http.MethodPost
				}
				out = append(out, Form{
					Action: a["action"], Method: method, Fields: url.Values{}, Buttons: url.Values{},
				})
				form = &out[len(out)-1]
			}
			continue
		}
		if form == nil {
			continue
		}
		name, named := a["name"]
		_, checked := a["checked"]
		switch {
		case tag == "select":
			choice, chosen = "", false
			if !closing && named {
				choice = name
				form.Inputs = append(form.Inputs, name)
			}
		case closing:
		case tag == "option" && choice != "":
			value, ok := a["value"]
			if !ok {
				value = text
			}
			_, selected := a["selected"]
			if selected || !chosen { // the first one unless another is selected
				form.Fields.Set(choice, value)
				chosen = true
			}
		case !named:
		case tag == "button":
			form.Buttons.Add(name, a["value"])
		case tag == "textarea":
			form.Fields.Add(name, text)
			form.Inputs = append(form.Inputs, name)
		case tag == "input":
			switch strings.ToLower(a["type"]) {
			case "submit", "image", "button":
				form.Buttons.Add(name, a["value"])
			case "reset", "file":
			case "checkbox", "radio":
				value, ok := a["value"]
				if !ok {
					value = "on"
				}
				if checked {
					form.Fields.Add(name, value)
				}
				form.Inputs = append(form.Inputs, name)
			case "hidden":
				form.Fields.Add(name, a["value"])
			default:
				form.Fields.Add(name, a["value"])
				form.Inputs = append(form.Inputs, name)
			}
		}
	}
	return out
}

func attributesOf(s string) map[string]string {
	out := map[string]string{}
	for _, m := range attributes.FindAllStringSubmatch(s, -1) {
		name := strings.ToLower(m[1])
		if _, ok := out[name]; !ok {
			out[name] = html.UnescapeString(m[2] + m[3] + m[4])
		}
	}
	return out
}
