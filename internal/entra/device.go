package entra

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	msalerrors "github.com/AzureAD/microsoft-authentication-library-for-go/apps/errors"

	"github.com/azure-patrol/patrol/internal/rotation"
)

// DeviceCode is what a person types in on another device.
type DeviceCode struct {
	UserCode string
	URL      string
	Expires  time.Time
}

// SignInByDevice signs an identity in on another device: show is called once,
// and the call returns when the person there is done. The client must be a
// public one. A tenant may forbid this flow, as Microsoft advises it to: whoever
// can talk the person into typing a code has the sign-in.
func (c *Client) SignInByDevice(ctx context.Context, identity, confirmUserID string, show func(DeviceCode)) error {
	a, err := c.account(identity)
	if err != nil {
		return err
	}
	if !c.cfg.Credential.isPublic() {
		return &rotation.Error{Class: rotation.Configuration, Code: "not-a-public-client",
			Message: "a sign-in by device code is for public clients only"}
	}
	m := msalCache{doc: document{Public: true}}
	client, err := c.newPublicClient(&m)
	if err != nil {
		return fmt.Errorf("starting a sign-in: %w", err)
	}
	code, err := client.public.AcquireTokenByDeviceCode(ctx, a.scopes)
	if err != nil {
		return client.failure(err, c.cfg.Now())
	}
	show(DeviceCode{UserCode: code.Result.UserCode, URL: code.Result.VerificationURL, Expires: code.Result.ExpiresOn})
	r, err := code.AuthenticationResult(ctx)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return deviceFailure(err, client, c.cfg.Now())
	}
	who, e := c.grantOf(r, "") // nobody else could have brought an answer here
	if e != nil {
		return e
	}
	who.confirmUserID = confirmUserID
	return a.finishSignIn(ctx, m.doc, who)
}

var (
	deviceError  = regexp.MustCompile(`"error":\s*"([a-z_]{1,64})"`)
	aadstsInText = regexp.MustCompile(`AADSTS(\d{1,9}):`)
)

// deviceFailure reads the error of a device code from MSAL's text: MSAL has
// drained the answer's body by then.
func deviceFailure(err error, client msalClient, now time.Time) *rotation.Error {
	answered, ok := errors.AsType[msalerrors.CallErr](err)
	if !ok || answered.Resp == nil {
		return client.failure(err, now)
	}
	text := err.Error()
	m := deviceError.FindStringSubmatch(text)
	if m == nil {
		return client.failure(err, now)
	}
	refused := func(code, message string) *rotation.Error {
		return &rotation.Error{Class: rotation.SignIn, Code: code, Message: message,
			Err: &SignInRefusal{Cause: Unknown}}
	}
	switch m[1] {
	case "authorization_declined", "access_denied":
		return refused("authorization-declined", "the sign-in was declined on the other device: start it again")
	case "expired_token", "code_expired":
		return refused("code-expired", "nobody has typed in the code in time: start the sign-in again")
	}
	r := &Refusal{Status: answered.Resp.StatusCode, Name: m[1]}
	if n := aadstsInText.FindStringSubmatch(text); n != nil {
		r.Number, _ = strconv.Atoi(n[1])
	}
	return r.failure()
}
