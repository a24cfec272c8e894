# `make help` shows what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
RELEASE := $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/release
# The environment that "make up" makes: production, dev or slim.
PROFILE ?= production
OVERLAY_dev := docker-compose.dev.yml
OVERLAY_slim := docker-compose.slim.yml
COMPOSE_FILES := docker-compose.yml $(OVERLAY_$(PROFILE)) $(wildcard docker-compose.override.yml)
# Agent and balancer share a secret. It is kept, so that either can be started anew.
TOKEN_FILE := dist/agent-token
COMPOSE = LB_AGENT_TOKEN="$${LB_AGENT_TOKEN:-$$(cat $(TOKEN_FILE) 2>/dev/null || echo none)}" $\
  $(shell docker compose version >/dev/null 2>&1 && echo 'docker compose' || echo docker-compose) $(addprefix -f ,$(COMPOSE_FILES))
FLEET ?= ringkeeper
PORT := $(or $(RINGKEEPER_PORT),5000)
FUZZ_SECONDS ?= 600
# One of a1, a2, a3, a4, moves, peers, autoscale, functions, relays, or all of them.
EXPERIMENT ?= all
ADMIN_PORT := $(or $(RINGKEEPER_ADMIN_PORT),5001)
# "host": images hold what cargo builds here; "full": everything is built in Docker.
export RINGKEEPER_BUILD ?= host
# Where the host publishes the balancer's admin listener: for developers, to all.
export RINGKEEPER_ADMIN_ADDRESS ?= $(if $(filter dev,$(PROFILE)),0.0.0.0,127.0.0.1)
# Open files of the balancer's container: 65536, or what this host allows.
export RINGKEEPER_NOFILE ?= $(shell most=$$(ulimit -Hn); [ "$$most" != unlimited ] && [ "$$most" -lt 65536 ] && echo "$$most" || echo 65536)

.PHONY: help run up down logs images build spread demo bench bench-quick bench-pick placement soak slow analysis figures fuzz test fmt lint unit doc deny clean

help: ## Show this help
	@printf 'Ringkeeper, a load balancer that keeps its replicas alive\n\n'
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'
	@printf '\nSettings are passed on: LB_REPLICAS=5 make run. All of them: make run ARGS=--help\n'

build: need-cargo ## Build the programs (static, optimised)
	@RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --target $(TARGET) -p lb -p server

run: build ## Balance on port 5000 with 3 replicas as local processes, no Docker needed
	@printf '\nIn another shell, try:\n'
	@printf '  curl localhost:$(PORT)/home\n  curl localhost:$(PORT)/rep\n'
	@printf '  curl -X POST -d '\''{"n":2,"hostnames":["S4"]}'\'' localhost:$(PORT)/add\n  curl localhost:$(ADMIN_PORT)/api/v1/replicas\n'
	@printf 'Ctrl-C ends it.\n\n'
	@export LB_LISTEN="$${LB_LISTEN:-0.0.0.0:$(PORT)}" LB_ADMIN_LISTEN="$${LB_ADMIN_LISTEN:-127.0.0.1:$(ADMIN_PORT)}"; \
	exec $(RELEASE)/lb serve $(ARGS)

images: need-engine ## Build the images ringkeeper and ringkeeper-server
	@if [ "$(RINGKEEPER_BUILD)" = host ]; then $(MAKE) --no-print-directory build dist; else mkdir -p dist; fi
	@mkdir -p dist; for image in server:ringkeeper-server lb:ringkeeper; do \
	  build="docker build -f Dockerfile.$${image%%:*} --target $(RINGKEEPER_BUILD) -t $${image##*:} ."; \
	  if [ "$(RINGKEEPER_BUILD)" = full ]; then $$build; \
	  else $$build >dist/build.log 2>&1 || { cat dist/build.log; exit 1; }; fi; \
	done
	@docker image ls --format '{{.Repository}}\t{{.Size}}' | awk '/^ringkeeper/ {printf "image %-18s %s\n", $$1, $$2}' | sort

.PHONY: dist need-cargo need-engine need-compose need-profile
dist:
	@mkdir -p dist && cp $(RELEASE)/lb $(RELEASE)/server dist/

up: need-engine need-compose need-profile images $(TOKEN_FILE) ## Start the balancer and its replicas in Docker, on port 5000 (PROFILE=dev, PROFILE=slim)
	@there=$$(docker inspect -f '{{index .Config.Labels "ringkeeper.environment"}}' ringkeeper-lb 2>/dev/null || true); \
	if [ -n "$$there" ] && [ "$$there" != $(PROFILE) ]; then \
	  echo "stopping the environment $$there first: two may not keep the same replicas"; $(COMPOSE) stop -t 20; \
	fi
	@$(COMPOSE) up -d --no-build --remove-orphans
	@printf 'waiting for the replicas'
	@for try in $$(seq 60); do \
	  if curl -fsS -m 2 -o /dev/null http://127.0.0.1:$(ADMIN_PORT)/readyz 2>/dev/null; then ready=1; break; fi; \
	  printf .; sleep 0.5; \
	done; printf '\n'; \
	if [ -z "$${ready:-}" ]; then \
	  echo 'not ready after 30 s:'; curl -sS -m 2 http://127.0.0.1:$(ADMIN_PORT)/readyz || true; \
	  $(COMPOSE) logs --tail 20; exit 1; \
	fi
	@curl -fsS http://127.0.0.1:$(PORT)/rep; echo
	@printf '\nReady. Try:\n'
	@printf '  curl localhost:$(PORT)/home\n'
	@printf '  curl -X POST -d '\''{"n":2,"hostnames":["S4"]}'\'' localhost:$(PORT)/add\n'
	@printf '  docker kill S2 && curl localhost:$(PORT)/rep\n'
	@printf '  make logs, make down\n'

# The secret is nobody else's to read.
$(TOKEN_FILE):
	@mkdir -p $(@D); umask 077; head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >$@

down: need-engine need-compose ## Remove the balancer, its replicas and the networks, of any environment
	@$(COMPOSE) stop -t 20
	@replicas=$$(docker ps -aq --filter label=ringkeeper.fleet=$(FLEET)); [ -z "$$replicas" ] || docker rm -f $$replicas >/dev/null
	@$(COMPOSE) down --remove-orphans

logs: need-engine need-compose ## Follow the logs of balancer and agent
	@$(COMPOSE) logs -f --tail 100

spread: need-cargo ## Send 10,000 requests to a running balancer, and show who answered them
	@cargo run --locked -q -p analysis -- spread --url http://127.0.0.1:$(PORT) --admin-url http://127.0.0.1:$(ADMIN_PORT)

demo: build ## TCP and UDP step by step, before a balancer of LB_CONTROL_LISTEN=127.0.0.1:9988 make run
	@cargo run --locked -q -p analysis -- demo --lb $(RELEASE)/lb --admin 127.0.0.1:$(ADMIN_PORT) \
	  --control "$${LB_CONTROL_LISTEN:-127.0.0.1:9988}" $(ARGS)

bench: build ## Measure a request's cost beside nginx and HAProxy, and how it grows (30 minutes, ARGS=--help)
	@cargo run --locked -q --release -p analysis -- bench --lb $(RELEASE)/lb $(ARGS)

bench-quick: build ## The first row of the benchmark, in under a minute
	@cargo run --locked -q --release -p analysis -- bench --quick --lb $(RELEASE)/lb $(ARGS)

bench-pick: need-cargo ## Time one choice of a replica, by policy and number of replicas (2 minutes)
	@cargo run --locked -q --release -p analysis -- pick $(ARGS)

placement: need-cargo ## Work out spread and moves of every policy and hash function, for docs/placement.md (a minute)
	@cargo run --locked -q --release -p analysis -- placement $(ARGS)

soak: build ## Five million requests: none may fail, memory must stay flat (ARGS='--kill-every 5')
	@cargo run --locked -q --release -p analysis -- soak --lb $(RELEASE)/lb $(ARGS)

slow: build ## Slow one of four replicas down, and compare the policies' latencies (3 minutes)
	@cargo run --locked -q --release -p analysis -- slow --lb $(RELEASE)/lb $(ARGS)

analysis: build ## Run the experiments A-1 to A-4 and more, with plots (17 minutes, or EXPERIMENT=a3 for one)
	@if [ -z '$(filter functions relays autoscale,$(EXPERIMENT))' ] && docker info >/dev/null 2>&1; then $(MAKE) --no-print-directory images; fi
	@cargo build --locked -q --release -p analysis
	@target/release/analysis $(EXPERIMENT) $(if $(filter functions,$(EXPERIMENT)),,--lb $(RELEASE)/lb) $(ARGS)

figures: need-cargo ## Run the healing tests, and show what they measured
	@if docker info >/dev/null 2>&1; then $(MAKE) --no-print-directory images; fi
	@cargo build --locked -q --workspace
	@cargo test --locked -q -p lb --test healing --test agent --test autoscale --test docker --test docker_agent -- --nocapture | grep -E 'figure: |NOT RUN|test result' | sed 's/^\.*figure: //'

fuzz: need-cargo ## Send the balancer damaged requests, for FUZZ_SECONDS=600
	@cargo build --locked -q --workspace
	@RINGKEEPER_FUZZ_SECONDS=$(FUZZ_SECONDS) cargo test --locked -q -p lb --test framing_fuzz replicas_get -- --nocapture

test: fmt lint unit doc deny ## Run everything that must hold: format, lints, tests, docs, dependencies

fmt: need-cargo
	@cargo fmt --all --check

lint: need-cargo
	@cargo clippy --locked --workspace --all-targets -- -D warnings

# The tests of the docker runtime need the images. Without an engine they say so, one by one.
unit: need-cargo
	@if docker info >/dev/null 2>&1; then $(MAKE) --no-print-directory images; fi
	@cargo build --locked --workspace
	@cargo test --locked --workspace

doc: need-cargo
	@RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps -q

deny: need-cargo
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --log-level error check bans licenses sources; \
	else echo 'cargo-deny is not installed, dependencies are not checked (cargo install cargo-deny)'; fi

clean: ## Remove what was built
	@cargo clean; rm -rf dist

need-cargo:
	@command -v cargo >/dev/null || { echo 'cargo is missing: install Rust from https://rustup.rs (or build in Docker: RINGKEEPER_BUILD=full make up)'; exit 1; }

need-engine:
	@command -v docker >/dev/null || { echo 'docker is missing: install the Docker Engine, or use "make run", which needs none'; exit 1; }
	@docker info >/dev/null 2>&1 || { echo 'no Docker engine answers: is it running, and may you use it ("docker info")? "make run" needs none'; exit 1; }

need-compose:
	@$(COMPOSE) version >/dev/null 2>&1 || { echo 'Compose is missing: install docker-compose 1.27+ or the docker compose plugin'; exit 1; }

need-profile:
	@case '$(PROFILE)' in production|dev|slim) ;; *) echo "there is no PROFILE '$(PROFILE)': production, dev, slim"; exit 1;; esac
