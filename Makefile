# Everything a person needs; `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint bench clean

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(READY) ## Migrate an SQLite file and project a stream of traffic fines into it
	$(BIN)/python examples/traffic_fines/main.py

test: $(READY) ## Run the tests on SQLite and on a PostgreSQL of their own
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-slow: $(READY) ## Run what takes minutes: long fault runs, other PostgreSQL versions
	$(BIN)/python -m pytest -m slow
	TEST_POSTGRES_BIN=wheel $(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal
	TEST_POSTGRES_BIN=wheel18 $(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal

lint: $(READY) ## Check style, types, the rules of imports, and the SQL of migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd examples/traffic_fines && DATABASE_URL=postgresql:// ../../$(BIN)/alembic upgrade head --sql 2> /dev/null \
		| ../../$(BIN)/squawk --config ../../.squawk.toml --stdin-filepath migrations.sql

bench: $(READY) ## Compare the stores with the raw drivers; look at query plans at a million rows
	$(BIN)/python -m benchmarks
	$(BIN)/python -m pytest -m slow tests/advanced/sagas/test_plans.py

clean: ## Remove the virtual environment and what tools left
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test,lint,demo]'
	touch $(READY)
