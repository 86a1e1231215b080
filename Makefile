# patrol. `make run` shows it at work, `make test` checks all of it.
# Needed: Go (the version in go.mod or newer), make and git. `make setup` sees to the
# rest: a C compiler for the race detector, Chromium, Node.js and npm.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

GO       ?= go
DIST     ?= dist
# Executions (10000x) or a time (1m) for each fuzz target. A count by default: up
# to Go 1.26 a run that ends by time may fail at its end with nothing found.
FUZZTIME ?= 3000x
# Which of them, by package and name: those that read what comes from outside of the
# app. FUZZ=. runs all.
FUZZ     ?= FuzzEnvelope|FuzzDecodeCommand|FuzzDecodeVaultEvents|manifest FuzzParse|/amqp |/events |FuzzCallback|keyring
# Which story of the simulation; empty: all.
SCENARIO ?=
# Arguments of the sandbox, and of the benchmarks.
ARGS     ?=
# The Bicep compiler. Without one the checks that need it are skipped, and fail
# where CI is set.
BICEP    ?= bicep
export BICEP

# The Go modules of this repository: the app and its sandbox; events and the client, which
# others import; tests that need more modules than the app; and the tools, without packages.
MODULES = . events clients/go tests
ALL     = $(MODULES) tools

# A tool runs in the folder of the module that it looks at, with the versions of tools.
TOOL = $(GO) tool -modfile='$(CURDIR)/tools/go.mod'

# Test packages that run by themselves, and those without the race detector, whose
# test-only modules take minutes to build under it.
APART = /e2e$$|/infra$$|/bench$$|/tests/dashboard$$|/tests/endurance$$
PLAIN = /tests/web$$|/tests/chromium$$|/tests/consumers$$

.PHONY: help
help: ## show this list
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-15s %s\n' "$$name" "$$text"; done

# --- What a newcomer needs

.PHONY: run
run: package ## package the app and run it on a local Azure; Ctrl-C ends it
	$(GO) build -buildvcs=false -o $(DIST)/sandbox ./sandbox
	@exec $(DIST)/sandbox $(ARGS)

# Which client the sample is of: js, go or python (Debian's, with python3-azure).
CLIENT ?= js
SAMPLE_js = node .cache/clients-js/sample.js
SAMPLE_python = /usr/bin/python3 -B clients/python/sample.py
SAMPLE_go = $(DIST)/sample

.PHONY: consumer
consumer: package clients-js ## the sandbox with a consumer beside it that is seen switching; CLIENT=go for the one in Go
	$(GO) build -buildvcs=false -o $(DIST)/sandbox ./sandbox
	$(GO) -C clients/go build -buildvcs=false -o '$(abspath $(DIST))/sample' ./sample
	@exec $(DIST)/sandbox -consumer '$(SAMPLE_$(CLIENT))' $(ARGS)

# The compiler and the tests spend a sixth of their time on collecting garbage.
test: export GOGC = 400

.PHONY: test
test: setup format modules vet staticcheck package unit faults bench-check e2e asyncapi infra fuzz vulnerabilities ## everything that CI checks
	@echo 'make test: all passed'

.PHONY: package
package: ## assemble the deployable app: dist/app and dist/app.zip
	$(GO) run -buildvcs=false ./packaging -o $(DIST)

# --- The parts of `make test`

.PHONY: setup
setup: ## see that the tools are there; install what is missing if we may
	@command -v $(GO) >/dev/null || { echo 'Go is missing: install the version that go.mod names, or newer' >&2; exit 1; }
	@missing=(); \
	cc=$$($(GO) env CC); cc=$${cc%% *}; \
	command -v "$$cc" >/dev/null || missing+=(gcc libc6-dev); \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium); \
	command -v npm >/dev/null || missing+=(nodejs npm); \
	if [[ $${#missing[@]} == 0 ]]; then exit 0; fi; \
	if [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null; then \
	  echo "setup: installing $${missing[*]}"; \
	  apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$${missing[@]}" >/dev/null; \
	else \
	  echo "setup: please install (by Debian's names): $${missing[*]}" >&2; exit 1; \
	fi

.PHONY: format
format: ## gofmt has nothing to say
	@files=$$(for m in $(MODULES); do $(GO) -C $$m list -f '{{.Dir}}' ./...; done | xargs "$$($(GO) env GOROOT)/bin/gofmt" -l | sort -u); \
	if [[ -n "$$files" ]]; then echo 'format: run gofmt -w on'; echo "$$files"; exit 1; fi; \
	echo 'format: ok'

.PHONY: modules
modules: ## of each module go.sum holds, and go.mod is tidy
	@for m in $(ALL); do \
	  echo "modules: $$m"; \
	  $(GO) -C $$m mod verify; \
	  if diff=$$($(GO) -C $$m mod tidy -diff); then echo 'modules: tidy'; \
	  elif [[ -n "$$diff" ]]; then echo "$$diff"; echo "modules: run go -C $$m mod tidy"; exit 1; \
	  else echo 'modules: tidy check SKIPPED, the modules it asks for cannot be reached (see above)'; fi; \
	done

.PHONY: vet
vet: ## go vet
	for m in $(MODULES); do $(GO) -C $$m vet ./...; done

.PHONY: staticcheck
staticcheck: ## staticcheck
	for m in $(MODULES); do (cd $$m && $(TOOL) staticcheck ./...); done

# -count=1: a test's remembered result does not know files outside of its module, and
# these read the API's description and the functions.
.PHONY: unit
unit: clients-js ## unit and simulation tests, with the race detector
	for m in $(MODULES); do $(GO) -C $$m test -race -timeout 8m $$($(GO) -C $$m list ./... | grep -vE '$(APART)|$(PLAIN)'); done
	$(GO) -C tests test -count=1 -timeout 5m $$($(GO) -C tests list ./... | grep -E '$(PLAIN)')

.PHONY: race
race: ## the tests that `make unit` runs without the race detector, with it
	$(GO) -C tests test -race -count=1 -timeout 20m $$($(GO) -C tests list ./... | grep -E '$(PLAIN)')

.PHONY: faults
faults: setup ## a PAT's year, a sign-in's 200 days, every upstream call of six stories going wrong in half of all ways, and every hand, in virtual time
	$(GO) test -count=1 -timeout 12m -v -run '^(TestAPATsYear|TestEverySingleFaultHolds|TestMemoryStaysFlatOverManyReconciles|TestNoHandMakesPatrolBreakAPromise)$$' ./sandbox/simulation
	$(GO) -C tests test -count=1 -timeout 5m -v ./endurance

.PHONY: e2e
e2e: setup package axe ## the packaged app, driven through all its triggers, and its pages by a real browser
	$(GO) test -race -count=1 -timeout 8m -v ./sandbox/e2e
	$(GO) -C tests test -count=1 -timeout 8m -v ./dashboard

# axe-core, which looks for what keeps people from using the dashboard.
.PHONY: axe
axe: setup
	@mkdir -p .cache/axe && cp tests/dashboard/package.json tests/dashboard/package-lock.json .cache/axe/
	npm ci --prefix .cache/axe --ignore-scripts --no-audit --no-fund --silent

# npm ci only when the lock file has changed: it takes longer than the check.
.PHONY: clients-js
clients-js: setup
	@mkdir -p .cache/clients-js && cp clients/js/*.js clients/js/package.json .cache/clients-js/
	@cmp -s clients/js/package-lock.json .cache/clients-js/package-lock.json || { \
	  cp clients/js/package-lock.json .cache/clients-js/ && npm ci --prefix .cache/clients-js --ignore-scripts --no-audit --no-fund --silent || { rm -f .cache/clients-js/package-lock.json; exit 1; }; }

.PHONY: asyncapi
asyncapi: setup ## docs/asyncapi.yaml, by the parser of the AsyncAPI project
	@mkdir -p .cache/asyncapi && cp tests/asyncapi/package.json tests/asyncapi/check.js .cache/asyncapi/
	@cmp -s tests/asyncapi/package-lock.json .cache/asyncapi/package-lock.json || { \
	  cp tests/asyncapi/package-lock.json .cache/asyncapi/ && npm ci --prefix .cache/asyncapi --ignore-scripts --no-audit --no-fund --silent || { rm -f .cache/asyncapi/package-lock.json; exit 1; }; }
	node .cache/asyncapi/check.js docs/asyncapi.yaml

.PHONY: infra
infra: ## Bicep, Terraform and workflows
	$(GO) test -count=1 -timeout 5m ./infra
	$(TOOL) actionlint -shellcheck= -pyflakes=
	infra/terraform/check

.PHONY: bench-check
bench-check: ## calls, round trips and allocations are no more than recorded
	$(GO) test -count=1 -timeout 3m ./bench

.PHONY: fuzz
fuzz: ## each fuzz target in FUZZ for FUZZTIME
	@for m in $(MODULES); do \
	  $(GO) -C $$m list -f '{{$$p := .}}{{range .TestGoFiles}}{{$$p.ImportPath}} {{$$p.Dir}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$$p.ImportPath}} {{$$p.Dir}}/{{.}}{{"\n"}}{{end}}' ./... \
	  | while read -r package file; do \
	    [[ -n "$$file" ]] || continue; \
	    sed -nE "s|^func (Fuzz[A-Za-z0-9_]*)\(.*|$$package \1 $$m|p" "$$file"; \
	  done; \
	done | { grep -E "$(FUZZ)" || { echo "fuzz: no target matches $(FUZZ)" >&2; exit 1; }; } | while read -r package target m; do \
	  echo "fuzz: $$package $$target"; \
	  $(GO) -C $$m test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x -timeout 10m "$$package" </dev/null; \
	done

.PHONY: vulnerabilities
vulnerabilities: ## govulncheck; skipped if its database cannot be reached
	@report=$$(mktemp); trap 'rm -f "$$report"' EXIT; \
	for m in $(MODULES); do \
	  status=0; echo "vulnerabilities: $$m"; \
	  (cd $$m && timeout 180 $(TOOL) govulncheck ./...) >"$$report" 2>&1 || status=$$?; \
	  cat "$$report"; \
	  if [[ $$status == 124 ]] || { [[ $$status != 0 && $$status != 3 ]] && grep -q 'fetching vulnerabilities' "$$report"; }; then \
	    echo 'vulnerabilities: check SKIPPED, its database cannot be reached'; exit 0; \
	  elif [[ $$status != 0 ]]; then exit $$status; fi; \
	done

# --- More

# go get -u would also ask a registry for newer versions of the modules that lie here.
.PHONY: newest
newest: ## the newest patch of Go, and the newest versions of all that the modules require
	@for m in $(ALL); do \
	  $(GO) -C $$m get toolchain@patch; \
	  packages=./...; [[ $$m != tools ]] || packages=tool; \
	  $(GO) -C $$m list -mod=mod -deps -test -f '{{with .Module}}{{if not (or .Main .Replace)}}{{.Path}}{{end}}{{end}}' $$packages | sort -u \
	  | xargs -r $(GO) -C $$m list -mod=mod -e -m -u -f '{{with .Update}}{{.Path}}@{{.Version}}{{end}}' | xargs -r $(GO) -C $$m get; \
	  $(GO) -C $$m mod tidy; \
	done

.PHONY: simulate
simulate: singles hands ## every single fault, every hand at every step, and every pair of faults; takes more than an hour, SCENARIO=rotate narrows it
	GOGC=400 $(GO) test -count=1 -timeout 24h -v -run '^TestEveryPairOfFaultsHolds$$' ./sandbox/simulation -args -pairs -scenario '$(SCENARIO)'

.PHONY: singles
singles: ## every single fault in every story, of which make test runs half; takes about eight minutes, SCENARIO=rotate narrows it
	GOGC=400 $(GO) test -count=1 -timeout 1h -v -run '^TestEverySingleFaultHolds$$' ./sandbox/simulation -args -every 1 -scenario '$(SCENARIO)'

.PHONY: hands
hands: ## every hand at every step of every story; SHARD=3/16 does a part, SCENARIO=rotate one story
	GOGC=400 $(GO) test -count=1 -timeout 24h -v -run '^(TestNoHandMakesPatrolBreakAPromise|TestRandomHandsWithFaultsAndTriplesHold)$$' ./sandbox/simulation -args -hands -scenario '$(SCENARIO)'

.PHONY: conformance
conformance: setup python3-azure ## the Service Bus SDK's own live tests against the sandbox; patrol's sign-in and its state against other servers; the client in Python
	$(GO) -C tests run -buildvcs=false ./conformance/entra
	$(GO) -C tests run -buildvcs=false ./conformance/blob
	$(GO) -C tests run -buildvcs=false ./conformance/servicebus
	CONFORMANCE=1 $(GO) -C tests test -count=1 -timeout 5m -v -run Python ./consumers

# Debian's packages of the SDKs for Python.
.PHONY: python3-azure
python3-azure:
	@/usr/bin/python3 -c 'import azure.servicebus, azure.identity, azure.keyvault.secrets' 2>/dev/null || { \
	  [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null || { echo 'please install (by Debian'"'"'s name): python3-azure' >&2; exit 1; }; \
	  apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-azure >/dev/null; }

.PHONY: bench
bench: ## patrol beside what it is compared with, one table of ratios; ARGS=-quick
	$(GO) run -buildvcs=false ./bench $(ARGS)

.PHONY: release
release: ## the deployable zip, the tool patrol for five platforms, bill of materials, checksums
	$(GO) run -buildvcs=false ./packaging -o $(DIST) -tools
	$(GO) run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.9.0 app -json -noserial -main handler -output $(DIST)/sbom.cdx.json .
	cd $(DIST) && sha256sum app.zip version.json patrol-* sbom.cdx.json >SHA256SUMS && cat SHA256SUMS

.PHONY: clean
clean: ## remove what the other targets made
	rm -rf $(DIST) .cache
