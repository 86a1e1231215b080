# patrol. `make run` shows it at work, `make test` checks all of it.
# Needed: Go (the version in go.mod or newer), make, git, and for the race
# detector a C compiler (`make setup` sees to that).

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

GO       ?= go
DIST     ?= dist
# Executions (10000x) or a time (1m) for each fuzz target. A count by default: up
# to Go 1.26 a run that ends by time may fail at its end with nothing found.
FUZZTIME ?= 10000x
# Which benchmarks.
BENCH    ?= .
# Which story of the simulation; empty: all.
SCENARIO ?=
# Arguments of the sandbox.
ARGS     ?=

# Test packages that drive the packaged app as a whole.
E2E = $(GO) list ./... | grep '/e2e$$'

.PHONY: help
help: ## show this list
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-15s %s\n' "$$name" "$$text"; done

# --- What a newcomer needs

.PHONY: run
run: package ## package the app and run it on a local Azure; Ctrl-C ends it
	$(GO) build -buildvcs=false -o $(DIST)/sandbox ./sandbox
	@exec $(DIST)/sandbox $(ARGS)

.PHONY: test
test: setup format modules vet staticcheck package unit faults e2e fuzz vulnerabilities ## everything that CI checks
	@echo 'make test: all passed'

.PHONY: package
package: ## assemble the deployable app: dist/app and dist/app.zip
	$(GO) run -buildvcs=false ./packaging -o $(DIST)

# --- The parts of `make test`

.PHONY: setup
setup: ## see that the tools are there; install a C compiler if we may
	@command -v $(GO) >/dev/null || { echo 'Go is missing: install the version that go.mod names, or newer' >&2; exit 1; }
	@cc=$$($(GO) env CC); cc=$${cc%% *}; \
	if ! command -v "$$cc" >/dev/null; then \
	  if [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null; then \
	    echo "setup: installing a C compiler, the race detector needs one"; \
	    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends gcc libc6-dev; \
	  else \
	    echo "setup: the race detector needs a C compiler ($$cc): install gcc and the C library's headers (Debian, Ubuntu: apt-get install gcc libc6-dev)" >&2; exit 1; \
	  fi; \
	fi

.PHONY: format
format: ## gofmt has nothing to say
	@files=$$($(GO) list -f '{{.Dir}}' ./... | xargs "$$($(GO) env GOROOT)/bin/gofmt" -l | sort -u); \
	if [[ -n "$$files" ]]; then echo 'format: run gofmt -w on'; echo "$$files"; exit 1; fi; \
	echo 'format: ok'

.PHONY: modules
modules: ## go.sum holds, go.mod is tidy
	$(GO) mod verify
	@if diff=$$($(GO) mod tidy -diff); then echo 'modules: tidy'; \
	elif [[ -n "$$diff" ]]; then echo "$$diff"; echo 'modules: run go mod tidy'; exit 1; \
	else echo 'modules: tidy check SKIPPED, the modules it asks for cannot be reached (see above)'; fi

.PHONY: vet
vet: ## go vet
	$(GO) vet ./...

.PHONY: staticcheck
staticcheck: ## staticcheck
	$(GO) tool staticcheck ./...

.PHONY: unit
unit: ## unit and simulation tests, with the race detector
	$(GO) test -race -timeout 8m $$($(GO) list ./... | grep -v '/e2e$$')

.PHONY: faults
faults: ## a PAT's year, and every upstream call of six stories going wrong in every way, in virtual time
	$(GO) test -count=1 -timeout 8m -v -run '^(TestAPATsYear|TestEverySingleFaultHolds|TestMemoryStaysFlatOverManyReconciles)$$' ./sandbox/simulation

.PHONY: e2e
e2e: package ## the packaged app, driven through all its triggers
	$(GO) test -race -count=1 -timeout 5m -v $$($(E2E))

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME
	@$(GO) list -f '{{$$p := .}}{{range .TestGoFiles}}{{$$p.ImportPath}} {{$$p.Dir}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$$p.ImportPath}} {{$$p.Dir}}/{{.}}{{"\n"}}{{end}}' ./... \
	| while read -r package file; do \
	  [[ -n "$$file" ]] || continue; \
	  sed -nE "s|^func (Fuzz[A-Za-z0-9_]*)\(.*|$$package \1|p" "$$file"; \
	done | while read -r package target; do \
	  echo "fuzz: $$package $$target"; \
	  $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x -timeout 10m "$$package" </dev/null; \
	done

.PHONY: vulnerabilities
vulnerabilities: ## govulncheck; skipped if its database cannot be reached
	@report=$$(mktemp); trap 'rm -f "$$report"' EXIT; status=0; \
	timeout 180 $(GO) tool govulncheck ./... >"$$report" 2>&1 || status=$$?; \
	cat "$$report"; \
	if [[ $$status == 124 ]] || { [[ $$status != 0 && $$status != 3 ]] && grep -q 'fetching vulnerabilities' "$$report"; }; then \
	  echo 'vulnerabilities: check SKIPPED, its database cannot be reached'; \
	else exit $$status; fi

# --- More

.PHONY: simulate
simulate: ## every pair of faults; takes hours, SCENARIO=rotate narrows it
	$(GO) test -count=1 -timeout 24h -v -run '^TestEveryPairOfFaultsHolds$$' ./sandbox/simulation -args -pairs -scenario '$(SCENARIO)'

.PHONY: conformance
conformance: ## the Service Bus SDK's own live tests against the sandbox
	$(GO) run -buildvcs=false ./sandbox/servicebus/conformance

.PHONY: bench
bench: ## benchmarks (BENCH selects them)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...

.PHONY: clean
clean: ## remove what the other targets made
	rm -rf $(DIST) .cache
