# make help lists the targets.

GO            ?= go
NPM           ?= npm
GOLANGCI_LINT := bin/tools/golangci-lint
LINT_VERSION  := v2.15.0
VERSION       := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
FUZZTIME      ?= 20s
DEMO_ARGS     ?=
BENCH_ARGS    ?=

# What the tests need beside Go and Node: real parts, as Debian packages them.
TEST_PACKAGES := chromium coturn kamailio kamailio-outbound-modules kamailio-presence-modules kamailio-tls-modules kamailio-websocket-modules libnss3-tools postgresql sip-tester sqlite3
TEST_PROGRAMS := chromium turnserver turnutils_uclient kamailio certutil sipp sqlite3

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: wic/dist/index.html ## build the page, bin/epcscf and bin/wic
	$(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/ ./cmd/epcscf ./cmd/wic

.PHONY: demo
demo: build ## build and run the demo (DEMO_ARGS="--turn-approach push ...")
	bin/epcscf demo $(DEMO_ARGS)

.PHONY: test
test: deps wic/dist/index.html ## run all tests, with the race detector
	cd wic && $(NPM) test
	$(GO) test -race -timeout 15m ./...

.PHONY: deps
deps: ## install the real parts that the tests need (as root; elsewhere name them)
	@missing=; for p in $(TEST_PROGRAMS); do command -v $$p >/dev/null || missing="$$missing $$p"; done; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$$missing initdb"; \
	if command -v dpkg-query >/dev/null; then for p in $(TEST_PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; fi; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	echo "The tests need$$missing, from the Debian packages: $(TEST_PACKAGES)"; \
	if [ "$$(id -u)" != 0 ]; then echo "Not root: install them with  sudo apt-get install --no-install-recommends $(TEST_PACKAGES)"; exit 1; fi; \
	echo "Installing them, since this is root."; \
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $(TEST_PACKAGES)

.PHONY: lint
lint: $(GOLANGCI_LINT) wic/node_modules ## gofmt, go vet and the linters; the page's types
	$(GOLANGCI_LINT) run ./...
	cd wic && $(NPM) run --silent lint

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (20s)
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "== $$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; \
	done

.PHONY: soak
soak: ## four minutes of 500 registrations a second, while relay, edge, database and the way between fail in turn; ten rotations of keys under load
	EPCSCF_SOAK=1 $(GO) test -count 1 -run '^(TestChaos|TestKeysRotateUnderLoad)$$' -v -timeout 15m ./cmd/epcscf

.PHONY: bench
bench: ## run the benchmarks; what a registration, a relayed packet and a stored credential cost takes seven minutes (BENCH_ARGS="-rounds 5")
	$(GO) test -run '^$$' -bench . -benchmem ./...
	$(GO) run ./bench/registration $(BENCH_ARGS)
	$(GO) run ./bench/relay $(BENCH_ARGS)
	$(GO) run ./bench/store $(BENCH_ARGS)
	$(GO) run ./bench/push

.PHONY: fmt
fmt: ## format the Go files
	gofmt -w $$(git ls-files '*.go')

.PHONY: clean
clean: ## remove what was built
	rm -rf bin wic/node_modules artifacts
	find wic/dist -mindepth 1 ! -name placeholder.html -delete

wic/node_modules: wic/package-lock.json
	cd wic && $(NPM) ci --no-audit --no-fund
	@touch $@

wic/dist/index.html: wic/node_modules $(shell find wic/src -type f 2>/dev/null) wic/build.mjs
	cd wic && $(NPM) run --silent build

$(GOLANGCI_LINT): Makefile
	@echo "Building golangci-lint $(LINT_VERSION); the first time takes minutes."
	GOBIN=$(CURDIR)/bin/tools $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	@touch $@
