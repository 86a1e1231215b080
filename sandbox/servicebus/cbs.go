package servicebus

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/azure-patrol/patrol/sandbox/servicebus/amqp"
)

// ConnectionString opens the bus at host (with its port, if it has one) without
// TLS; a client that brings its own connection may take any host.
func (b *Bus) ConnectionString(host string) string {
	return "Endpoint=sb://" + host + ";SharedAccessKeyName=" + b.cfg.KeyName + ";SharedAccessKey=" + b.cfg.Key +
		";UseDevelopmentEmulator=true"
}

// claim is what a token allows, and until when.
type claim struct {
	until        time.Time
	send, listen bool
	// rights narrows it for each entity; nil: it does not.
	rights func(entity string) (send, listen bool)
}

// allows reports whether the claim is in force and is for what is wanted of an entity.
func (c claim) allows(path string, send, listen bool) bool {
	maySend, mayListen := c.send, c.listen
	if c.rights != nil {
		maySend, mayListen = c.rights(path)
	}
	return time.Now().Before(c.until) && (send && maySend || listen && mayListen)
}

// covers reports whether a path is this one or lies below it; all lie below none.
func covers(above, path string) bool {
	return above == "" || path == above || strings.HasPrefix(path, above+"/")
}

// entityOf is the entity that a node belongs to: its dead letters and its management are
// its own.
func entityOf(path string) string {
	path = strings.TrimSuffix(path, "/$management")
	return strings.TrimSuffix(path, "/"+strings.ToLower(deadLetterQueue))
}

// allowed reports whether a token for this path, or for one above it, was put. The
// caller holds mu.
func (c *conn) allowed(path string, send, listen bool) bool {
	for at, cl := range c.claims {
		if covers(at, path) && cl.allows(entityOf(path), send, listen) {
			return true
		}
	}
	return false
}

// Authorize checks an Authorization header of the administration's HTTP
// interface, which only the full key and Entra ID's tokens open. admin.Client
// sends the latter bare, without "Bearer".
func (b *Bus) Authorize(header, resource string) error {
	if !strings.HasPrefix(header, "SharedAccessSignature ") {
		token := strings.TrimPrefix(header, "Bearer ")
		if token == "" || b.cfg.VerifyJWT == nil || b.cfg.VerifyJWT(token, resource) != nil {
			return errors.New("InvalidToken: the token is not accepted")
		}
		return nil
	}
	cl, err := b.verifySAS(header, resource)
	if err == nil && (!cl.send || !cl.listen) {
		err = errors.New("the key does not have the Manage right")
	}
	return err
}

// cbs answers put-token.
func (l *link) cbs(m *amqp.Message) {
	b := l.s.c.b
	props := m.ApplicationProperties
	token, _ := m.Value()
	text, _ := token.(string)
	audience, _ := props.Get("name").(string)
	kind, _ := props.Get("type").(string)
	code, why := int32(200), "OK"
	var cl claim
	switch {
	case props.Get("operation") != "put-token" || text == "" || audience == "":
		code, why = 400, "put-token needs a token and a name."
	case kind == "servicebus.windows.net:sastoken":
		var err error
		cl, err = b.verifySAS(text, audience)
		if err != nil {
			code, why = 401, err.Error()
		}
	case kind == "jwt":
		// VerifyJWT checks the token's own end. A link that outlives it is not
		// cut, as the service does not cut it at once either.
		cl = claim{until: time.Now().Add(24 * time.Hour), send: true, listen: true}
		if b.cfg.VerifyJWT == nil || b.cfg.VerifyJWT(text, audience) != nil {
			code, why = 401, "InvalidToken: the token is not accepted."
		}
		if code == 200 && b.cfg.Rights != nil {
			cl.rights = b.cfg.Rights(text)
		}
	default:
		code, why = 400, "The token type is not supported."
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if code == 200 {
		path := pathOf(audience)
		if entity := strings.TrimSuffix(path, "/$management"); entity != "" && b.find(entity) == nil {
			code, why = 404, "The messaging entity '"+audience+"' could not be found."
		} else {
			l.s.c.claims[path] = cl
		}
	}
	l.answer(m, code, why, "", nil)
}

// pathOf is the entity's path of an audience, in lower case.
func pathOf(audience string) string {
	_, rest, ok := strings.Cut(audience, "://")
	if !ok {
		rest = audience
	}
	_, path, _ := strings.Cut(rest, "/")
	path, _, _ = strings.Cut(path, "?") // an administration token is for a whole request
	return strings.ToLower(strings.Trim(path, "/"))
}

func (b *Bus) verifySAS(token, audience string) (claim, error) {
	refuse := func(why string) (claim, error) { return claim{}, errors.New("InvalidSignature: " + why) }
	fields, ok := strings.CutPrefix(token, "SharedAccessSignature ")
	if !ok {
		return refuse("the token is no shared access signature")
	}
	part := map[string]string{}
	for _, f := range strings.Split(fields, "&") {
		k, v, _ := strings.Cut(f, "=")
		part[k] = v
	}
	sig, err := url.QueryUnescape(part["sig"])
	if err != nil {
		return refuse("the signature is not readable")
	}
	name, err := url.QueryUnescape(part["skn"])
	if err != nil {
		return refuse("the key name is not readable")
	}
	keys := append([]Key{{Name: b.cfg.KeyName, Key: b.cfg.Key, Send: true, Listen: true}}, b.cfg.Keys...)
	i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == name && k.Key != "" })
	if i < 0 {
		return refuse("the key name is not known")
	}
	mac := hmac.New(sha256.New, []byte(keys[i].Key))
	mac.Write([]byte(part["sr"] + "\n" + part["se"]))
	if !hmac.Equal([]byte(base64.StdEncoding.EncodeToString(mac.Sum(nil))), []byte(sig)) {
		return refuse("the signature is wrong")
	}
	resource, err := url.QueryUnescape(part["sr"])
	if err != nil {
		return refuse("the resource is not readable")
	}
	if !covers(pathOf(resource), pathOf(audience)) {
		return refuse("the token is for another resource")
	}
	seconds, err := strconv.ParseInt(part["se"], 10, 64)
	if err != nil {
		return refuse("the end is not readable")
	}
	end := time.Unix(seconds, 0)
	if !time.Now().Before(end) {
		return claim{}, fmt.Errorf("ExpiredToken: The token is expired. Expiration time: '%s'",
			end.UTC().Format(time.RFC1123))
	}
	return claim{until: end, send: keys[i].Send, listen: keys[i].Listen, rights: keys[i].Rights}, nil
}

// answer sends the response to a request. The caller holds mu.
func (l *link) answer(request *amqp.Message, code int32, description string, condition amqp.Symbol, body amqp.Map) {
	if body == nil {
		body = amqp.Map{}
	}
	m := amqp.NewValueMessage(body)
	m.SetProperties(amqp.Properties{CorrelationID: request.Properties.MessageID})
	props := amqp.Map{{Key: "statusCode", Value: code}, {Key: "status-code", Value: code},
		{Key: "statusDescription", Value: description}, {Key: "status-description", Value: description}}
	if condition != "" {
		props = append(props, amqp.Pair{Key: "errorCondition", Value: condition})
	}
	m.SetApplicationProperties(props)
	if to := l.replyLink(request.Properties.ReplyTo); to != nil {
		to.replies = append(to.replies, m.Encode())
		to.reply()
	}
}

// replyLink is the link that a response goes to: by target address, else by
// name, else the other half of the pair in this session.
func (l *link) replyLink(address string) *link {
	var named, pair *link
	for _, s := range l.s.c.sessions {
		for _, o := range s.links {
			if o.sender || o.detached || o.handler == nil {
				continue
			}
			if address != "" && o.target == address {
				return o
			}
			if address != "" && o.name == address {
				named = o
			}
			if s == l.s && strings.EqualFold(o.address, l.address) {
				pair = o
			}
		}
	}
	if named != nil {
		return named
	}
	return pair
}
