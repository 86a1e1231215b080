package broker_test

import (
	"testing"

	"github.com/azure-patrol/patrol/sandbox/servicebus/amqp"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

func ptr[T any](v T) *T { return &v }

func message() *amqp.Message {
	m := amqp.NewMessage([]byte("x"))
	m.SetProperties(amqp.Properties{
		MessageID: "m", CorrelationID: "c", To: "t", ReplyTo: "r", Subject: "s", ContentType: "ct", GroupID: ptr("g"),
		ReplyToGroupID: "rg",
	})
	m.SetApplicationProperties(amqp.Map{
		{Key: "text", Value: "v"}, {Key: "byte", Value: uint8(7)}, {Key: "long", Value: int64(-3)},
		{Key: "half", Value: float32(0.5)},
		{Key: "yes", Value: true}, {Key: "raw", Value: []byte("v")}, {Key: "null", Value: nil},
	})
	return m
}

func TestAFilterIsAnAndOfEqualities(t *testing.T) {
	has := func(pairs ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i].(string)] = pairs[i+1]
		}
		return m
	}
	for name, tc := range map[string]struct {
		filter broker.Filter
		want   bool
	}{
		"empty":                  {broker.Filter{}, true},
		"none":                   {broker.Filter{None: true}, false},
		"message id":             {broker.Filter{MessageID: ptr("m")}, true},
		"correlation id":         {broker.Filter{CorrelationID: ptr("c")}, true},
		"to":                     {broker.Filter{To: ptr("t")}, true},
		"reply to":               {broker.Filter{ReplyTo: ptr("r")}, true},
		"subject":                {broker.Filter{Subject: ptr("s")}, true},
		"content type":           {broker.Filter{ContentType: ptr("ct")}, true},
		"session":                {broker.Filter{SessionID: ptr("g")}, true},
		"reply to session":       {broker.Filter{ReplyToSessionID: ptr("rg")}, true},
		"other message id":       {broker.Filter{MessageID: ptr("x")}, false},
		"other correlation id":   {broker.Filter{CorrelationID: ptr("x")}, false},
		"other to":               {broker.Filter{To: ptr("x")}, false},
		"other reply to":         {broker.Filter{ReplyTo: ptr("x")}, false},
		"other subject":          {broker.Filter{Subject: ptr("x")}, false},
		"other content type":     {broker.Filter{ContentType: ptr("x")}, false},
		"other session":          {broker.Filter{SessionID: ptr("x")}, false},
		"other reply to session": {broker.Filter{ReplyToSessionID: ptr("x")}, false},
		"in another case":        {broker.Filter{Subject: ptr("S")}, false},
		"all of two":             {broker.Filter{Subject: ptr("s"), To: ptr("t")}, true},
		"one of two":             {broker.Filter{Subject: ptr("s"), To: ptr("x")}, false},
		"text":                   {broker.Filter{Properties: has("text", "v")}, true},
		"text in another case":   {broker.Filter{Properties: has("text", "V")}, false},
		"name in another case":   {broker.Filter{Properties: has("Text", "v")}, false},
		"binary as text":         {broker.Filter{Properties: has("raw", "v")}, true},
		"numbers of any width": {broker.Filter{Properties: has("byte", int64(7), "long", int64(-3), "half",
			0.5)}, true},
		"another number":               {broker.Filter{Properties: has("byte", int64(8))}, false},
		"a number and its text":        {broker.Filter{Properties: has("byte", "7")}, false},
		"a boolean":                    {broker.Filter{Properties: has("yes", true)}, true},
		"a boolean and its text":       {broker.Filter{Properties: has("yes", "true")}, false},
		"a property that is not there": {broker.Filter{Properties: has("absent", "v")}, false},
		"a null is nothing":            {broker.Filter{Properties: has("null", "v")}, false},
		"a property and a wrong part":  {broker.Filter{Subject: ptr("x"), Properties: has("text", "v")}, false},
	} {
		if got := tc.filter.Match(message()); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestWhatAMessageLacksIsEmptyText(t *testing.T) {
	m := amqp.NewMessage(nil)
	if !(broker.Filter{SessionID: ptr(""), Subject: ptr(""), MessageID: ptr("")}).Match(m) {
		t.Error("an empty message does not match empty texts")
	}
	if (broker.Filter{SessionID: ptr("g")}).Match(m) {
		t.Error("an empty message matches a session")
	}
}
