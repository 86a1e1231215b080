// Package functionshost is the sandbox's Azure Functions host: it reads a
// packaged app (host.json and the function.json files directly below it), starts
// its custom handler, and drives it by timers, Service Bus messages and HTTP
// requests the way host v4 (4.1037) does, its surprises included: double-encoded
// strings, a handler that is never restarted after exit code 0, an empty answer
// that hangs until functionTimeout, routes tried in the order of function names.
//
// What the real host refuses is refused here. A function that cannot be loaded
// is reported in Problems, the others run. So is what the real host offers and no
// function of an app like patrol asks for: HTTP requests are proxied
// (enableProxyingHttpRequest), never put in an envelope or forwarded the older way;
// routes are made of literals and {parameters}.
//
// The package must not know the app: everything it does follows from the app
// folder, the app settings and Config. Sockets, processes and Service Bus clients
// come from Config, so that the same host runs a real child process over TCP and
// an in-process handler over pipes in virtual time.
package functionshost
