package bus

import (
	"context"
	"net"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/coder/websocket"
)

// WebSockets opens connections for AMQP over web sockets on port 443, for networks that
// close port 5671: as azservicebus.ClientOptions.NewWebSocketConn. address gives the place
// of a namespace's "wss://..." address; nil: that address itself.
func WebSockets(transport http.RoundTripper, address func(string) string) func(context.Context,
	azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
	client := &http.Client{Transport: transport}
	return func(ctx context.Context, to azservicebus.NewWebSocketConnArgs) (net.Conn, error) {
		url := to.Host
		if address != nil {
			url = address(url)
		}
		c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: client,
			Subprotocols: []string{"amqp"}})
		if err != nil {
			return nil, err
		}
		// The connection outlives the send that has opened it.
		return websocket.NetConn(context.WithoutCancel(ctx), c, websocket.MessageBinary), nil
	}
}
