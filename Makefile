# Commands for working on the harness. `make help` lists them. Nothing but Python (>= 3.11) and make is needed.

PYTHON ?= python3
WORKERS ?= 2
DEMO_PLUGINS ?= chcr,tsmem

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint docs board-check reliability compatibility check bench format clean

help: ## List the commands.
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1 | \2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null \
	  || sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1   \2/p' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Make .venv with the harness, its plugins and the tools; every other command does so by itself.

# torch and torchvision are resolved in one call, so that the pair matches.
$(INSTALLED): pyproject.toml
	@command -v $(PYTHON) >/dev/null \
	  || { echo "error: there is no '$(PYTHON)'. Install Python 3.11 or newer, or name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
	  || { echo "error: '$(PYTHON) -m venv' failed; on Debian and Ubuntu the package python3-venv brings it." >&2; exit 1; }
	@echo "installing into $(VENV) (torch with CUDA libraries is several GB; a few minutes)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(INSTALLED) ## Train chcr,tsmem on the embedded dataset, evaluate, print the table.
	$(BIN)/harness run --plugins $(DEMO_PLUGINS) --out runs --name demo --force

test: $(INSTALLED) ## Fast tests.
	$(PYTEST) -n $(WORKERS) --benchmark-disable -m "not slow and not gpu"

test-slow: $(INSTALLED) ## Slow tests (pytest's "nothing was collected" is no failure here).
	@$(PYTEST) -n $(WORKERS) --benchmark-disable -m "slow and not gpu" || { status=$$?; test $$status -eq 5; }

lint: $(INSTALLED) ## Format, lint, types and import layers, without changing a file.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(INSTALLED) ## The documentation as a site, in docs/_build/html; a warning is an error.
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

board-check: $(INSTALLED) ## Whether tables and page of leaderboards/ are what its records give, to the byte.
	$(BIN)/harness leaderboard build --check

reliability: $(INSTALLED) ## Make docs/reliability.md anew from the faults that the tests inject.
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.table

compatibility: $(INSTALLED) ## Make docs/compatibility.md anew: which parts of the in-tree plugins train beside which.
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.compatibility.table

check: lint test ## All that a change must pass before review: lint and the fast tests.

bench: $(INSTALLED) ## Benchmarks, timed, one process.
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only

format: $(INSTALLED) ## Format the code and mend what ruff can mend.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove caches and build products; .venv and runs/ stay.
	rm -rf build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache
	find harness plugins tests scripts -type d -name __pycache__ -prune -exec rm -rf {} +
