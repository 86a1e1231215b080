package rotation_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/azure-patrol/patrol/internal/rotation"
)

func TestASecretPrintsNowhere(t *testing.T) {
	t.Parallel()
	const canary = "c4n4ry-token"
	s := rotation.NewSecret(canary)
	holder := struct {
		Name string
		S    rotation.Secret
		P    *rotation.Secret
		M    map[string]rotation.Secret
	}{"x", s, &s, map[string]rotation.Secret{"k": s}}

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%10.3s", "%U"} {
		fmt.Fprintf(&out, verb+"\n", s)
		fmt.Fprintf(&out, verb+"\n", &s)
		fmt.Fprintf(&out, verb+"\n", holder)
	}
	for _, v := range []any{s, &s, holder, map[string]any{"s": s}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "secret", s, "pointer", &s, "holder", holder)
	}
	out.WriteString(fmt.Errorf("wrapping %v: %w", s, fmt.Errorf("%s", s)).Error())

	if strings.Contains(out.String(), canary) || strings.Contains(out.String(), fmt.Sprintf("%x", canary)) {
		t.Errorf("the token shows in:\n%s", out.String())
	}
	if !strings.Contains(out.String(), "[redacted]") {
		t.Error("nothing says [redacted]")
	}
	if s.Reveal() != canary || s.Empty() || !(rotation.Secret{}).Empty() {
		t.Error("Reveal or Empty is wrong")
	}
}

func TestTheFormsOfAPATAreKnown(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("A", 76) + "AZDO" + "abcd"
	for value, want := range map[string]bool{
		strings.Repeat("a", 52): true, strings.Repeat("a", 52) + "\n": true, " " + long + "\r\n": true, long: true,
		strings.Repeat("A", 84): false, strings.Repeat("a", 51): false, "": false,
		"Server=tcp:db;Password=x": false, strings.Repeat("a", 51) + "=": false,
	} {
		if got := rotation.NewSecret(value).HasPATForm(); got != want {
			t.Errorf("%d characters beginning with %.5q have the form of a PAT: %v, want %v", len(value), value, got,
				want)
		}
	}
}
