SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Every module that go.work names; tools/ lies outside it and has versions of
# its own. Asked for only by the targets that use it.
MODULES = $(shell go list -m -f '{{.Dir}}')
TOOLS := GOWORK=off go -C tools

BIN := $(CURDIR)/bin
FUZZTIME ?= 10s
BENCH ?= .
SEEDS ?= 1000
FROM ?= 1
MINUTES ?= 30
RUN ?= .

# Two packages at a time: the largest ones link several hundred megabytes with
# the race detector, and CI has two cores.
TESTFLAGS := -p=2 -timeout=10m -run='$(RUN)'

ifeq ($(CI),true)
  NOSKIP := -no-skip
endif

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  RUN=regexp selects tests and scenarios, BENCH=regexp Go benchmarks, FUZZTIME=duration is per fuzz target,"
	@echo "  INSTALL=1 lets make test install the servers and the browser that tests need (Debian, root)."

# vet is left to lint, where it sees everything and not only a few checks.
.PHONY: test
test: needs $(BIN)/testall ## all tests of all modules with the race detector
	@$(TOOLS) test -vet=off ./...
	@$(BIN)/testall $(NOSKIP) -together $(MODULES) -- -race -vet=off $(TESTFLAGS)
	@echo "── allocations, which the race detector would add to"
	@$(BIN)/testall $(NOSKIP) $(CURDIR) -- -vet=off -p=2 -timeout=5m -run=Allocat

.PHONY: test-quick
test-quick: $(BIN)/testall ## the short tests, without the race detector
	@$(BIN)/testall -together $(MODULES) -- -short -vet=off $(TESTFLAGS)

.PHONY: needs
needs:
ifneq ($(filter true,$(CI))$(filter 1,$(INSTALL)),)
	@scripts/needs install
else
	@scripts/needs report
endif

# The -race flag changes no finding. It makes both linters read the compiled
# dependencies that make test needs anyway, instead of compiling all twice.
.PHONY: lint
lint: $(BIN)/staticcheck ## gofmt, go vet, staticcheck and go mod tidy, all modules
	@echo "── gofmt"
	@bad=$$(gofmt -l .); \
	  if [ -n "$$bad" ]; then printf 'not formatted; run gofmt -w on:\n%s\n' "$$bad" >&2; exit 1; fi
	@echo "── go vet"
	@go vet -race $(MODULES:%=%/...)
	@$(TOOLS) vet ./...
	@echo "── staticcheck"
	@GOFLAGS="$${GOFLAGS:-} -race" $(BIN)/staticcheck $(MODULES:%=%/...)
	@cd tools && GOWORK=off $(BIN)/staticcheck ./...
	@echo "── go mod tidy"
	@for dir in $(MODULES) $(CURDIR)/tools; do \
	  go -C "$$dir" mod tidy -diff || { echo "run go mod tidy in $$dir" >&2; exit 1; }; done

.PHONY: fuzz
fuzz: ## every fuzz target of all modules, FUZZTIME each
	@scripts/fuzz $(FUZZTIME) $(MODULES)

.PHONY: fuzz-frames
fuzz-frames: ## N mutated frames through the decoder, without coverage: N=1000000 SEED=1
	@mkdir -p $(BIN)
	@go test -c -o $(BIN)/wire.test ./internal/wire
	@cd internal/wire && $(BIN)/wire.test -test.run='^TestMutated_' -test.v -test.timeout=0 \
	  -mutations=$${N:-1000000} -mutation-seed=$${SEED:-1}

.PHONY: mutants
mutants: $(BIN)/mutants ## breaks one mechanism after the other; the tests must notice. MD=1 writes docs/mutants.md
	@$(BIN)/mutants -run='$(RUN)' $(if $(MD),-md docs/mutants.md) tools/mutants/list/*.txt

.PHONY: outages
outages: ## every transport's server away for OUTAGE=30s while events are raised; PUBLISH=docs writes docs/outages.md
	@scripts/outages "$${OUTAGE:-30s}" "$(PUBLISH)" $(filter %bus,$(MODULES))

.PHONY: flood
flood: ## 100,000 forged frames a second against real instances, FLOODTIME=30s for each kind
	@nice -n 5 go test -count=1 -v -timeout=60m -run='^TestFlood_' ./internal/flood -flood=$${FLOODTIME:-30s} -flood-rate=100000

.PHONY: sim
sim: ## simulated clusters: SEEDS=N seeds from FROM on, or SEED=n and everything that happens in it
ifdef SEED
	@go run ./internal/sim/simulate -seed $(SEED)
else
	@go run ./internal/sim/simulate -seeds $(SEEDS) -from $(FROM)
endif

.PHONY: sim-loss
sim-loss: ## what is missed at 1, 5, 20 and 50 % loss, last messages before silence, rotation under load
	@go run ./internal/sim/simulate -figures

.PHONY: sim-growth
sim-growth: ## what sites of 2 to 1,000 instances cost: SIZES=2,4 NETWORKS=udp,tcp; PUBLISH=docs writes docs/scaling.md
	@go run ./internal/sim/simulate -growth -sizes '$(SIZES)' -networks '$(NETWORKS)' -publish '$(PUBLISH)'

.PHONY: bench-go
bench-go: ## Go benchmarks of all modules
	@for dir in $(MODULES); do go -C "$$dir" test -run='^$$' -bench='$(BENCH)' -benchmem -p=1 ./...; done

# ROUNDS=n is how often each system has its turn. For one system alone: bin/bench one NAME.
.PHONY: bench
bench: $(BIN)/bench ## Carillon beside what people would pick instead, most of an hour; writes docs/performance.md (Linux)
	@$(BIN)/bench run --docs docs --rounds $${ROUNDS:-5}

.PHONY: bench-quick
bench-quick: $(BIN)/bench ## every goal of speed in less than three minutes, a line for each (Linux)
	@$(BIN)/bench quick

.PHONY: bench-guard
bench-guard: $(BIN)/bench ## fails if a goal of speed is below half of what must hold, twice (Linux)
	@$(BIN)/bench guard

# ZeroMQ is linked where its C library is.
BENCHTAGS = $(shell pkg-config --exists libzmq 2>/dev/null && echo zmq)

.PHONY: bench-opponents
bench-opponents: $(BIN)/testall ## what Carillon is measured beside carries events at all; needs its servers, names those that are missing
	@$(BIN)/testall $(NOSKIP) $(CURDIR)/bench -- -race -vet=off -p=1 -timeout=10m -tags=opponents,$(BENCHTAGS) -run='^TestSystems_'

.PHONY: chaos
chaos: $(BIN)/chaos $(BIN)/carillon ## real processes in network namespaces, disturbed in every way (Linux, root)
	@$(BIN)/chaos run -run='$(RUN)'

.PHONY: soak
soak: $(BIN)/chaos ## random faults for MINUTES; PUBLISH=docs writes the graph and the summary (Linux, root)
	@$(BIN)/chaos soak -minutes=$(MINUTES) -seed=$(or $(SEED),0) -publish='$(PUBLISH)'

.PHONY: cover
cover: ## statement coverage, a figure per package and a total per module; profiles in bin/
	@mkdir -p $(BIN)
	@i=0; for dir in $(MODULES); do i=$$((i+1)); \
	  go -C "$$dir" test -vet=off -p=2 -coverpkg=./... -coverprofile=$(BIN)/cover-$$i.out ./...; \
	  echo "── $$dir $$(go -C "$$dir" tool cover -func=$(BIN)/cover-$$i.out | tail -n 1)"; done

.PHONY: build
build: ## all packages of all modules, and the programs into bin/
	@mkdir -p $(BIN)
	@go build $(MODULES:%=%/...)
	@for dir in $(MODULES); do if compgen -G "$$dir/carillon/main.go" >/dev/null; then \
	  go -C "$$dir" build -o $(BIN)/ ./carillon; fi; done

.PHONY: clean
clean: ## removes bin/ and the results of go test that Go remembers
	@rm -rf $(BIN)
	@go clean -testcache

$(BIN)/staticcheck: tools/go.mod tools/go.sum
	@$(TOOLS) build -o $@ honnef.co/go/tools/cmd/staticcheck

# Always built: they are made of the whole library.
.PHONY: $(BIN)/chaos $(BIN)/carillon $(BIN)/bench
$(BIN)/chaos:
	@go -C chaos build -buildvcs=false -o $@ .
$(BIN)/carillon:
	@go -C cmd build -buildvcs=false -o $@ ./carillon
$(BIN)/bench:
	@go -C bench build -buildvcs=false -tags='$(BENCHTAGS)' -o $@ .
	@go -C bench build -buildvcs=false -o $@-instance ./instance

$(BIN)/testall: tools/go.mod $(wildcard tools/testall/*.go)
	@$(TOOLS) build -buildvcs=false -o $@ ./testall

$(BIN)/mutants: tools/go.mod $(wildcard tools/mutants/*.go)
	@$(TOOLS) build -buildvcs=false -o $@ ./mutants
