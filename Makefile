# What a contributor runs. "make help" lists the targets; the longer recipes
# are in scripts/. Each target installs what it lacks, or says what to install.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Settings, as in "make fuzz FUZZTIME=5m".
FUZZTIME ?= 10s
SEEDS    ?= 1000
BENCH    ?= .
CROSS    ?= linux/arm64 linux/arm darwin/arm64 windows/amd64
export FUZZTIME SEEDS BENCH CROSS

# What check runs, in this order: one word here for each target below.
STEPS := test
STEPS += format
STEPS += lint
STEPS += tidy
STEPS += generated
STEPS += goldens
STEPS += cross
STEPS += fuzz
STEPS += sim
STEPS += demo
STEPS += committed

.PHONY: help run demo build release examples bench
.PHONY: test check steps sim golden generate $(STEPS)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

run: build examples ## start the runtime and print the dashboard's address
	@exec bin/peers-runtime up --init $(foreach a,$(wildcard bin/apps/*.peersapp),--install $(a))

demo: scripts/demo.sh build examples ## two devices pair, sync, fail and recover; 90 seconds
	@scripts/demo.sh

build: ## the commands, into bin/
	@scripts/need.sh go
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

release: ## the commands for every platform, into dist/
	@scripts/need.sh go
	@scripts/release.sh

examples: scripts/examples.sh build ## the example apps, as bundles
	@scripts/examples.sh

bench: build ## measure against the targets: one BENCH line each
	@scripts/need.sh go
	@scripts/bench.sh

check: $(STEPS) ## precisely what CI runs, test included

steps: # for .ci/run
	@echo $(STEPS)

test: ## vet and all tests, with the race detector, in every module
	@scripts/need.sh go gcc chromium firefox-esr nft ip
	@scripts/test.sh

format: # gofmt has nothing to say
	@files=$$(gofmt -l .); test -z "$$files" || { echo "format: gofmt -w" $$files; exit 1; }

lint: # staticcheck has nothing to say
	@scripts/lint.sh

tidy: # go.mod and go.sum list what is used
	@for dir in $$(scripts/modules.sh) tools; do (cd $$dir && go mod tidy -diff) || exit 1; done

generate: ## rewrite generated files
	go generate ./...
	scripts/thirdparty.sh

generated: # generated files are up to date
	@scripts/unchanged.sh $(MAKE) -s generate

golden: ## rewrite the golden files from what the code does now
	@scripts/golden.sh

goldens: # golden files are what the code does
	@scripts/unchanged.sh $(MAKE) -s golden

cross: # everything compiles for the other platforms
	@for p in $(CROSS); do echo "go build for $$p"; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} go build ./... || exit 1; done

fuzz: ## every fuzz target, FUZZTIME each
	@scripts/need.sh go gcc
	@scripts/fuzz.sh

sim: ## the simulator, on SEEDS seeds
	@scripts/need.sh go
	@scripts/sim.sh

committed: # nothing is uncommitted, and no step left anything behind
	@git status --porcelain; test -z "$$(git status --porcelain)"
