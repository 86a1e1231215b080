package events

import (
	"embed"
	"fmt"
)

//go:embed schemas/*.json
var schemas embed.FS

// Types lists the types that this package knows.
func Types() []string {
	return []string{TypeRotated, TypeRevoked, TypeRotationFailed, TypeExpiring, TypeSignedIn, TypeSignInRequired,
		TypeSignInExpiring, TypeCheckIncomplete, TypeCheckRecovered}
}

// Schema gives the JSON Schema (draft 2020-12) of a whole event of this type,
// envelope and data.
func Schema(eventType string) ([]byte, error) {
	b, err := schemas.ReadFile("schemas/" + eventType + ".json")
	if err != nil {
		return nil, fmt.Errorf("no schema for events of type %q", eventType)
	}
	return b, nil
}
