package customhandler_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/azure-patrol/patrol/internal/customhandler"
)

const jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"

// pat has the shape of today's PATs, put together so that no scanner takes it for one.
var pat = strings.Repeat("a1", 38) + "AZ" + "DO" + "x9y8"

func logged(t *testing.T, log func(*slog.Logger)) (line string, fields map[string]any) {
	t.Helper()
	var b bytes.Buffer
	log(customhandler.NewLog(&b, slog.LevelInfo))
	line = b.String()
	if line == "" {
		return "", nil
	}
	if err := json.Unmarshal(b.Bytes(), &fields); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return line, fields
}

func TestNoLogLineCanPassForOneOfTheHostsOwn(t *testing.T) {
	for _, text := range []string{
		"LanguageWorkerConsoleLog[system] x", "azfuncjsonlog:{}",
		"x\nazfuncjsonlog:{}", "x\r\nLanguageWorkerConsoleLog",
	} {
		line, fields := logged(t, func(l *slog.Logger) { l.Info(text, "also", text) })
		if !strings.HasPrefix(line, "{") {
			t.Errorf("%q: the line does not begin with {: %q", text, line)
		}
		check(t, "line breaks", strings.Count(line, "\n"), 1)
		check(t, "msg", fields["msg"], any(text))
	}
}

func TestTheLogKeepsSecretsAndPayloadsOut(t *testing.T) {
	for name, attr := range map[string]slog.Attr{
		"key in a URL":        slog.String("url", "https://x/api/pats?y=1&code=canary&z=2"),
		"code of a sign-in":   slog.String("url", "https://x/api/signin/callback?state=canary&code=canary#top"),
		"error with a URL":    slog.Any("error", errors.New(`Get "https://x/?sig=canary": EOF`)),
		"header":              slog.Any("headers", http.Header{"X-Functions-Key": {"canary"}}),
		"header as text":      slog.String("dump", `map[X-Functions-Key:[canary] Y:[z]] x-functions-key: canary`),
		"named like a header": slog.String("X-Functions-Key", "canary"),
		"authorization":       slog.String("authorization", "Basic canary"),
		"JWT":                 slog.String("said", "token "+jwt+" refused"),
		"PAT":                 slog.String("said", "token "+pat+" refused"),
		"bytes":               slog.Any("raw", []byte("canary")),
		"raw JSON":            slog.Any("raw", json.RawMessage(`"canary"`)),
		"struct":              slog.Any("message", customhandler.Message{Body: []byte("canary"), MessageID: "canary"}),
		"request":             slog.Any("request", &http.Request{Host: "canary"}),
		"map":                 slog.Any("map", map[string]string{"canary": "canary"}),
		"list":                slog.Any("list", []string{"?code=canary"}),
		"in a group":          slog.Group("g", slog.String("body", "canary"), slog.String("url", "?code=canary")),
		"cookie":              slog.String("Set-Cookie", "canary"),
		"Easy Auth":           slog.String("X-MS-CLIENT-PRINCIPAL", "canary"),
		"time under its name": slog.Group("g", slog.String("time", "?code=canary")),
		"key as a top level":  slog.String("msg", "?code=canary"),
	} {
		line, _ := logged(t, func(l *slog.Logger) { l.With(attr).Info("text ?code=canary", attr) })
		if line == "" {
			t.Errorf("%s: nothing is logged", name)
		}
		for _, secret := range []string{"canary", jwt[10:], pat} {
			if strings.Contains(line, secret) {
				t.Errorf("%s: %s is in the log: %s", name, secret, line)
			}
		}
	}
}

// word is one of a closed set, like the classes of errors.
type word string

func TestTheLogStaysReadable(t *testing.T) {
	_, fields := logged(t, func(l *slog.Logger) {
		l.Info("PAT rotated", "pat", "jenkins-agents", "code", "AADSTS700082",
			"duration", 1500*time.Millisecond, "n", 3, "error", errors.New("status code=500"),
			"scopes", []string{"vso.code"}, "address", netip.MustParseAddr("127.0.0.1"), "none", nil,
			"at", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), "class", word("sign-in"))
	})
	for key, want := range map[string]string{
		"level": `"INFO"`, "msg": `"PAT rotated"`, "pat": `"jenkins-agents"`, "code": `"AADSTS700082"`,
		"duration": `"1.5s"`, "n": `3`, "error": `"status code=500"`, "scopes": `["vso.code"]`,
		"address": `"127.0.0.1"`, "none": `null`, "at": `"2026-01-02T03:04:05Z"`, "class": `"sign-in"`,
	} {
		got, err := json.Marshal(fields[key])
		if err != nil {
			t.Fatal(err)
		}
		check(t, key, string(got), want)
	}
	line, _ := logged(t, func(l *slog.Logger) { l.Debug("below the level") })
	check(t, "a line below the level", line, "")
}
