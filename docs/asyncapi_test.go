package docs_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/azure-patrol/patrol/events"
)

// asyncAPI is docs/asyncapi.yaml, as far as it is held against the code.
type asyncAPI struct {
	Channels map[string]struct {
		Address  string
		Messages map[string]reference
		Bus      struct{ Entity, Role string } `yaml:"x-service-bus"`
	}
	Components struct {
		Messages map[string]asyncMessage
	}
}

type reference struct {
	Ref string `yaml:"$ref"`
}

type asyncMessage struct {
	Name        string
	ContentType string `yaml:"contentType"`
	Bus         struct {
		MessageID             string   `yaml:"messageId"`
		SessionID             string   `yaml:"sessionId"`
		Label                 string   `yaml:"label"`
		ApplicationProperties []string `yaml:"applicationProperties"`
	} `yaml:"x-service-bus"`
	Payload struct {
		AllOf []struct {
			Ref        string `yaml:"$ref"`
			Properties struct {
				Type struct{ Const string }
				Data reference
			}
		} `yaml:"allOf"`
	}
	Examples []struct {
		Name    string
		Payload reference
	}
}

func readAsyncAPI(t *testing.T) asyncAPI {
	t.Helper()
	b, err := os.ReadFile("asyncapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var a asyncAPI
	if err := yaml.Unmarshal(b, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestTheAsyncAPIDescriptionHasEveryMessage(t *testing.T) {
	t.Parallel()
	a := readAsyncAPI(t)
	var described []string
	for key, m := range a.Components.Messages {
		described = append(described, m.Name)
		checkAsyncMessage(t, m)
		channel := "pat-events"
		if m.Name == events.TypeConfirmed {
			channel = "pat-confirmations"
		}
		if got, want := a.Channels[channel].Messages[key].Ref, "#/components/messages/"+key; got != want {
			t.Errorf("%s in the channel %s is %q, want %q", m.Name, channel, got, want)
		}
	}
	slices.Sort(described)
	want := slices.Sorted(slices.Values(append(events.Types(), events.TypeConfirmed)))
	if !slices.Equal(described, want) {
		t.Errorf("messages\n %q, want\n %q", described, want)
	}
	for name, c := range a.Channels {
		if c.Address != name {
			t.Errorf("channel %s has the address %q, want its name", name, c.Address)
		}
	}
	if got, want := a.Channels["pat-events"].Bus.Role, "Azure Service Bus Data Receiver"; got != want {
		t.Errorf("role at the topic %q, want %q", got, want)
	}
	if got, want := a.Channels["pat-confirmations"].Bus.Role, "Azure Service Bus Data Sender"; got != want {
		t.Errorf("role at the queue %q, want %q", got, want)
	}
}

func checkAsyncMessage(t *testing.T, m asyncMessage) {
	t.Helper()
	if m.ContentType != events.ContentType {
		t.Errorf("%s: content type %q, want %q", m.Name, m.ContentType, events.ContentType)
	}
	if len(m.Payload.AllOf) != 2 {
		t.Fatalf("%s: %d schemas of the payload, want the envelope's and the data's", m.Name, len(m.Payload.AllOf))
	}
	envelope, own := m.Payload.AllOf[0].Ref, m.Payload.AllOf[1].Properties
	if want := "../events/schemas/v1/envelope.json"; envelope != want {
		t.Errorf("%s: envelope %q, want %q", m.Name, envelope, want)
	}
	if own.Type.Const != m.Name {
		t.Errorf("%s: type %q, want its name", m.Name, own.Type.Const)
	}
	if want := "../events/schemas/v1/" + m.Name + ".json"; own.Data.Ref != want {
		t.Errorf("%s: data %q, want %q", m.Name, own.Data.Ref, want)
	}
	if !strings.HasSuffix(events.DataSchemaURI(m.Name), strings.TrimPrefix(own.Data.Ref, "..")) {
		t.Errorf("%s: dataschema %q is not the address of %q", m.Name, events.DataSchemaURI(m.Name), own.Data.Ref)
	}
	if m.Name == events.TypeConfirmed {
		return
	}
	e := events.NewCheckIncomplete("/patrol/v", time.Now(), events.CheckIncomplete{Scope: "organization",
		Identity: "i", Organization: "o", Class: "policy"})
	e.TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	want := slices.Sorted(maps.Keys(e.Properties()))
	if got := slices.Sorted(slices.Values(m.Bus.ApplicationProperties)); !slices.Equal(got, want) {
		t.Errorf("%s: properties of the message %q, want %q", m.Name, got, want)
	}
	if m.Bus.Label != "<type>" {
		t.Errorf("%s: label %q, want the type", m.Name, m.Bus.Label)
	}
}

func TestTheExamplesOfTheAsyncAPIDescriptionAreTheFixtures(t *testing.T) {
	t.Parallel()
	var shown []string
	for _, m := range readAsyncAPI(t).Components.Messages {
		for _, e := range m.Examples {
			path := filepath.FromSlash(e.Payload.Ref)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Errorf("%s: %v", m.Name, err)
				continue
			}
			event, err := events.Decode(b)
			if err != nil {
				t.Errorf("%s: %s: %v", m.Name, path, err)
				continue
			}
			if event.Type != m.Name {
				t.Errorf("%s is an example of %s, and a %s", path, m.Name, event.Type)
			}
			shown = append(shown, path)
		}
	}
	all, err := filepath.Glob("../events/testdata/events/*.json")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(shown)
	if !slices.Equal(shown, all) {
		t.Errorf("examples\n %q, want all fixtures\n %q", shown, all)
	}
}
