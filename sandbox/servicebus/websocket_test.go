package servicebus_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/azure-patrol/patrol/sandbox/servicebus"
	"github.com/azure-patrol/patrol/sandbox/servicebus/broker"
)

func TestWebSocketsAreForAMQPAtOnePathOnly(t *testing.T) {
	t.Parallel()
	bus, err := servicebus.New(servicebus.Config{KeyName: "key", Key: "right",
		Entities: broker.Entities{Queues: []broker.Queue{{Name: "q"}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	server := httptest.NewServer(bus)
	defer server.Close()
	for _, c := range []struct {
		name, path string
		protocols  []string
		taken      bool
	}{
		{"as the SDKs come", "/$servicebus/websocket", []string{"amqp"}, true},
		{"as Python's SDK comes", "/$servicebus/websocket/", []string{"AMQPWSB10"}, true},
		{"another path", "/servicebus", []string{"amqp"}, false},
		{"no subprotocol", "/$servicebus/websocket", nil, false},
		{"another subprotocol", "/$servicebus/websocket", []string{"mqtt"}, false},
	} {
		conn, _, err := websocket.Dial(t.Context(), strings.Replace(server.URL, "http", "ws", 1)+c.path,
			&websocket.DialOptions{Subprotocols: c.protocols})
		taken := err == nil
		if taken && !c.taken { // it may be closed right after the handshake
			_, _, err = conn.Read(t.Context())
			taken = err == nil
		}
		if conn != nil {
			_ = conn.CloseNow()
		}
		if taken != c.taken {
			t.Errorf("%s: taken is %t, want %t", c.name, taken, c.taken)
		}
	}
}
