package consumers

import (
	"encoding/json"
	"os"
	"os/exec"
	"reflect"
	"testing"

	"github.com/azure-patrol/patrol/events"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/servicebus"
)

const withSessions = `{"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [], "Topics": [{
  "Name": "pat-events", "Properties": {}, "Subscriptions": [{"Name": "yours",
    "Properties": {"RequiresSession": true}}]}]}], "Logging": {"Type": "File"}}}`

// sdkScript asks for what the sandbox once answered in another way than the service.
const sdkScript = `
import {ManagedIdentityCredential} from '@azure/identity';
import {ServiceBusClient} from '@azure/service-bus';
const env = process.env;
const credential = new ManagedIdentityCredential({clientId: env.AZURE_CLIENT_ID});
const bus = new ServiceBusClient('localhost', credential, {customEndpointAddress: env.SERVICEBUS_CUSTOM_ADDRESS});
const out = {};
const rules = bus.createRuleManager(env.EVENT_TOPIC, env.SERVICEBUS_SUBSCRIPTION);
await rules.createRule('mine', {sqlExpression: "subject = 'nuget-feed'"});
await rules.createRule('labels', {subject: 'patrol.pat.rotated'});
await rules.deleteRule('$Default');
out.rules = [];
for await (const rule of rules.listRules()) {
  out.rules.push(rule.name);
}
const receiver = await bus.acceptSession(env.EVENT_TOPIC, env.SERVICEBUS_SUBSCRIPTION, 'nuget-feed');
const [message] = await receiver.receiveMessages(1, {maxWaitTimeInMs: 5000});
out.session = message.sessionId;
out.deliveryCount = message.deliveryCount;
await receiver.deferMessage(message);
const [again] = await receiver.receiveDeferredMessages([message.sequenceNumber]);
await receiver.completeMessage(again);
try {
  await receiver.receiveDeferredMessages([message.sequenceNumber]);
  out.gone = 'no error';
} catch (e) {
  out.gone = e.code;
}
await receiver.close();
await bus.close();
console.log(JSON.stringify(out));
process.exit(0);
`

func TestTheJavaScriptSDKMeetsTheServiceAsItIs(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(nodeModules + "/node_modules"); err != nil {
		t.Skip("run make clients-js first")
	}
	c, err := cloud.New(cloud.Config{Extra: []byte(withSessions),
		Consumers: []cloud.Consumer{{Name: "consumer", Subscription: "yours"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	err = c.Bus.Send(cloud.EventTopic, servicebus.Message{ID: "1", SessionID: pat, Subject: events.TypeRotated,
		Body: []byte("{}"), Properties: map[string]any{"subject": pat}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "--input-type=module", "--eval", sdkScript)
	cmd.Dir, cmd.Env = nodeModules, os.Environ()
	for name, value := range c.ConsumerEnvironment("consumer") {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	for what, want := range map[string]any{"rules": []any{"mine", "labels"}, "session": pat, "deliveryCount": 0.0,
		"gone": "MessageNotFound"} {
		if !reflect.DeepEqual(got[what], want) {
			t.Errorf("%s: %v, want %v", what, got[what], want)
		}
	}
}
