package events

import (
	"embed"
	"encoding/json"
	"fmt"
)

//go:embed schemas/v1/*.json
var schemas embed.FS

// schemaBase is where the schemas are. The version changes with what breaks a reader;
// see docs/subscribing.md.
const schemaBase = "https://github.com/azure-patrol/patrol/raw/main/events/schemas/v1/"

// Types lists the types that patrol publishes.
func Types() []string {
	return []string{TypeRotated, TypeRevoked, TypeRotationFailed, TypeExpiring, TypeSignedIn, TypeSignInRequired,
		TypeSignInExpiring, TypeCheckIncomplete, TypeCheckRecovered, TypeSwitched, TypeSwitchLate, TypeSwitchFailed,
		TypeDelivered, TypeDeliveryFailed, TypePostponed}
}

// DataSchemaURI is the address of the schema of a type's data: the event's dataschema.
// It is empty for a type that this package does not know.
func DataSchemaURI(eventType string) string {
	if decoderOf(eventType) == nil {
		return ""
	}
	return schemaBase + eventType + ".json"
}

// DataSchema gives the JSON Schema (draft 2020-12) of the data of a type.
func DataSchema(eventType string) ([]byte, error) {
	if decoderOf(eventType) == nil {
		return nil, fmt.Errorf("no schema for events of type %q", eventType)
	}
	return schemas.ReadFile("schemas/v1/" + eventType + ".json")
}

// EnvelopeSchema gives the JSON Schema of what all events have around their data.
func EnvelopeSchema() ([]byte, error) { return schemas.ReadFile("schemas/v1/envelope.json") }

// Schema gives one JSON Schema of whole events of a type: the envelope's, with the data's
// in its place.
func Schema(eventType string) ([]byte, error) {
	data, err := DataSchema(eventType)
	if err != nil {
		return nil, err
	}
	envelope, err := EnvelopeSchema()
	if err != nil {
		return nil, err
	}
	var whole map[string]json.RawMessage
	var properties map[string]json.RawMessage
	err = json.Unmarshal(envelope, &whole)
	if err == nil {
		err = json.Unmarshal(whole["properties"], &properties)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the envelope's schema: %w", err)
	}
	set := func(in map[string]json.RawMessage, key string, value any) {
		if err == nil {
			in[key], err = json.Marshal(value)
		}
	}
	set(properties, "type", map[string]string{"const": eventType})
	properties["data"] = data
	set(whole, "properties", properties)
	set(whole, "$id", "urn:patrol:event:v1:"+eventType)
	set(whole, "title", "an event of type "+eventType)
	if err != nil {
		return nil, fmt.Errorf("writing the schema of %s: %w", eventType, err)
	}
	return json.MarshalIndent(whole, "", "  ")
}
