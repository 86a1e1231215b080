// Command empty is the least that a custom handler of the Functions host can be: what
// patrol's own start and size are compared with.
package main

import (
	"io"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"Outputs":null,"Logs":[],"ReturnValue":null}`)
	})
	if http.ListenAndServe("127.0.0.1:"+os.Getenv("FUNCTIONS_CUSTOMHANDLER_PORT"), nil) != nil {
		os.Exit(1)
	}
}
