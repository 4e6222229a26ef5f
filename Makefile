# The verbs of curvebench. `make bench` on a fresh checkout installs by itself and prints the comparison table.
#
#   VENV=.venv        folder of the environment         PYTHON=python3.12   interpreter to make it with
#   TORCH=cpu|cuda    which build of torch              SYSTEM_SITE=1       build on the packages of that interpreter
#   STUDY=quick       what `make bench` runs            NO_INSTALL=1        take the environment as it is
#   ENGINE=buildah    what `make image` builds with  IMAGE=curvebench   and how it calls the result
#   WORKERS=auto      processes that share the tests    TESTS=tests/store   which tests

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?=
TORCH ?= cpu
SYSTEM_SITE ?=
NO_INSTALL ?=
STUDY ?= quick
TESTS ?= tests
WORKERS ?= auto
PYTEST_FLAGS ?=
ASV_FLAGS ?=
ENGINE ?=
IMAGE ?= curvebench
BASE ?=
IMAGE_FLAGS ?=

BIN := $(abspath $(VENV))/bin
RUN := $(BIN)/python -m

.PHONY: help install bench test lint types certify tables docs asv asv-publish nightly wheel image gpu-bundle clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: ## make .venv and install into it, or do nothing if that is done
ifeq ($(NO_INSTALL),)
	@python="$(BIN)/python"; \
	"$$python" -c '' 2>/dev/null || python=$$(sh tools/find-python.sh "$(PYTHON)"); \
	"$$python" tools/install.py --venv "$(VENV)" --torch "$(TORCH)" $(if $(SYSTEM_SITE),--system-site)
endif

bench: install ## run the quick study and print its table; what is stored is not run again
	@$(BIN)/curvebench bench $(STUDY)

test: install ## run the tests, a file of them at a time in each of WORKERS processes
	@$(RUN) pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile $(PYTEST_FLAGS) $(TESTS)

lint: install ## ruff's rules and format, and the layers of the imports
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(BIN)/lint-imports

types: install ## mypy, strict
	@$(RUN) mypy

certify: install ## measure what the suite states about itself: rates, invariances, minima, identities
	@$(BIN)/curvebench certify

tables: install ## rebuild tables and figures from the records
	@$(BIN)/curvebench report

docs: install ## build the documentation site into site/; a broken link or a page without a place fails
	@NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --clean

asv: install ## run the asv benchmarks; stores them under the current commit in .asv/
	@$(RUN) asv machine --yes >/dev/null
	@CURVEBENCH_PAIRS="$${CURVEBENCH_PAIRS:-8}" $(RUN) asv run --python=same --set-commit-hash "$$(git rev-parse HEAD)" $(ASV_FLAGS)

asv-publish: install ## make asv's site of all stored benchmarks in .asv/html
	@$(RUN) asv publish --quiet
	@echo "open .asv/html/index.html through a web server: make asv-publish && $(BIN)/asv preview"

nightly: install ## the larger dose of a night; says what became worse in results/nightly/summary.md
	@CURVEBENCH_PAIRS="$${CURVEBENCH_PAIRS:-8}" $(RUN) curvebench.procedures.nightly

wheel: install ## build the sdist and the wheel into dist/
	@$(RUN) build --no-isolation --outdir dist .

image: ## build the container image curvebench:cpu (TORCH=cuda: curvebench:cuda) with docker, podman or buildah
	@ENGINE="$(ENGINE)" BASE="$(BASE)" IMAGE_FLAGS="$(IMAGE_FLAGS)" /bin/sh tools/image.sh "$(TORCH)" "$(IMAGE)"

gpu-bundle: install ## write dist/gpu-bundle: all that a GPU machine without a package index needs
	@$(BIN)/python tools/gpu_bundle.py

clean: ## remove what can be made again; the environment and the records stay
	@rm -rf build dist site .asv .tox .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks
	@find . -path "./$(VENV)" -prune -o -path ./.git -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
