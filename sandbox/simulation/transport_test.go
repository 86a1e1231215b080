package simulation_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/azure-patrol/patrol/internal/app"
	"github.com/azure-patrol/patrol/sandbox/cloud"
	"github.com/azure-patrol/patrol/sandbox/simulation"
)

// A network that lets HTTPS out and nothing else.
func TestWhereTheAMQPPortIsClosedPatrolSendsOverWebSockets(t *testing.T) {
	t.Parallel()
	for _, webSockets := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := simulation.New(t, simulation.Config{
				Manifest: manifestOfOne,
				Cloud:    func(c *cloud.Config) { c.WebSockets = webSockets },
				Outside: func(o *app.Outside) {
					o.Dial = func(context.Context, string) (net.Conn, error) {
						return nil, errors.New("the port is closed")
					}
				},
			})
			defer w.Close()
			err := w.Sweep()
			time.Sleep(10 * time.Minute)
			_, isThere := w.Latest("jenkins-agents")
			isDone := err == nil && isThere && len(w.Events()) > 0
			if webSockets && !isDone {
				t.Errorf("over web sockets: the sweep says %v, a PAT is there: %t, events: %v", err, isThere,
					w.Events())
			}
			if !webSockets && (err == nil || isThere) {
				t.Error("over AMQP something was sent through a closed port: this test shows nothing")
			}
		})
	}
}

const manifestOfOne = `apiVersion: patrol/v1
identities:
  build-bot:
    user: build-bot@contoso.com
pats:
  - name: jenkins-agents
    identity: build-bot
    organization: contoso
    scopes: [vso.build_execute]
`
