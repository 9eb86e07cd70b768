# Everything a person needs; `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.ready-bench
SITE_READY := $(VENV)/.ready-docs
IN_PARALLEL := --numprocesses auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-floor test-package test-proxy test-pythons test-rolling test-slow lint bench bench-compare bench-growth clean

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(READY) ## Migrate an SQLite file and project a stream of traffic fines into it
	$(BIN)/python examples/traffic_fines/main.py

test: $(READY) ## Run the tests on SQLite and on a PostgreSQL of their own
	$(BIN)/python -m pytest $(IN_PARALLEL)

test-proxy: $(READY) ## Run the stores' tests through a PgBouncer that pools by transaction (apt-get install pgbouncer)
	TEST_POSTGRES_PROXY=pgbouncer $(BIN)/python -m pytest $(IN_PARALLEL) -rs \
		tests/core tests/advanced tests/proxy tests/test_specification_*.py tests/test_ports.py

test-slow: $(READY) ## Run what takes minutes: long fault runs, other PostgreSQL versions
	$(BIN)/python -m pytest -m slow
	TEST_POSTGRES_BIN=wheel $(BIN)/python -m pytest $(IN_PARALLEL)
	TEST_POSTGRES_BIN=wheel18 $(BIN)/python -m pytest $(IN_PARALLEL)

test-floor: ## Run the tests with the lowest versions of every dependency
	$(PYTHON) -m venv .venv-floor
	$(PYTHON) tests/support/floors.py > .venv-floor/floors.txt
	.venv-floor/bin/python -m pip install --quiet --upgrade pip
	.venv-floor/bin/python -m pip install --quiet --editable '.[test]' --constraint .venv-floor/floors.txt
	.venv-floor/bin/python -m pytest $(IN_PARALLEL)

PYTHONS ?= python3.11 python3.12 python3.13
test-pythons: ## Run the tests on each of PYTHONS (python3.11 python3.12 python3.13)
	for python in $(PYTHONS); do $(MAKE) test PYTHON=$$python VENV=.venv-$$python || exit 1; done

test-package: $(READY) ## Build sdist and wheel, check what a package index would, install from the sdist and try it
	rm -rf dist && $(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv --clear .venv-sdist
	.venv-sdist/bin/python -m pip install --quiet dist/*.tar.gz
	cd "$$(mktemp -d)" && $(CURDIR)/.venv-sdist/bin/python -c "import cqrs_ddd_persistence_sqlalchemy.schema"

test-rolling: $(READY) ## Run the tests of the previous release's stores on this one's schema
	$(BIN)/python -m tests.support.previous_release

lint: $(READY) ## Check style, types, the rules of imports, and the SQL of migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd examples/traffic_fines && DATABASE_URL=postgresql:// ../../$(BIN)/alembic upgrade head --sql 2> /dev/null \
		| ../../$(BIN)/squawk --config ../../.squawk.toml --stdin-filepath migrations.sql

EVENTS ?=
bench: $(BENCH_READY) ## Compare the stores with the raw drivers and with other libraries (EVENTS=log.csv)
	$(BIN)/python -m benchmarks --write-docs $(if $(EVENTS),--events $(EVENTS))

bench-compare: $(READY) ## Show what has changed since an earlier run (EARLIER=file.json)
	$(BIN)/python -m benchmarks.compare $(EARLIER)

bench-growth: $(READY) ## Look at query plans, times and memory as tables grow to a million rows
	$(BIN)/python -m benchmarks.growth --write-docs
	$(BIN)/python -m pytest -m slow tests/advanced/sagas/test_plans.py

docs: $(SITE_READY) ## Build the site from docs/ into build/site; a broken link or an unknown name fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html; for the search: $(PYTHON) -m http.server --directory build/site"

clean: ## Remove the virtual environment and what tools left
	rm -rf $(VENV) .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test,lint,demo]'
	touch $(READY)

$(BENCH_READY): $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $(BENCH_READY)

$(SITE_READY): $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $(SITE_READY)
