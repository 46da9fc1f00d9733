# Every command of the project. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# Debian's own Python first: a version manager's may come and go.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3.11) $(shell command -v python3.11 || command -v python3))
BIN := .venv/bin
ALEMBIC := $(BIN)/python -m alembic -c include/migrations/alembic.ini
# Tests wait for servers as long as they work, so two cores take three; each has servers of its own.
SIDE_BY_SIDE := --numprocesses=3 --dist=loadfile --no-loadscope-reorder
COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --python-version 3.11 --custom-compile-command "make lock"

.PHONY: help ready up down clean airflow migrate migrate-back demo bench test lint cases soak lock

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

ready: ## Install what is missing: PostgreSQL 15, Redis (apt), .venv and .venv-tools (locked packages)
	@"$(PYTHON)" dev/bootstrap.py

up: ready ## Start PostgreSQL, a source with pg_receivewal, OpenBao and SeaweedFS; write .dev/env
	@$(BIN)/python -m dev up

down: ## Stop them; the data stays
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m dev down; else echo "Nothing was ever started here."; fi

clean: ## Stop them and delete .dev: data, keys and passwords
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m dev clean; else rm -rf .dev; fi

airflow: up ## Start the whole Airflow on the stack, with its web UI; Ctrl-C ends it
	@$(BIN)/python -m dev airflow

migrate: up ## Bring the journal database to the newest schema (`make up` does it too)
	@. .dev/env && $(ALEMBIC) upgrade head

migrate-back: up ## Take the journal database's schema away; refused while the journal has rows
	@. .dev/env && $(ALEMBIC) downgrade base

demo: ready ## From nothing to a dump, a base backup and shipped WAL, verified, drilled, with a report
	@PYTHONPATH=plugins $(BIN)/python -m dev.demo

bench: ready ## Measure against other tools (WHAT=dump|basebackup|restore|wal|all SIZE_GB=1 RUNS=3 SEGMENTS=200)
	@PYTHONPATH=plugins $(BIN)/python -m dev.bench

lint: ready ## Lint and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

test: lint ## Lint, types and every test, on real servers of its own
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE)

soak: ready ## The long tests, a quarter of an hour: most of it is servers being away
	@$(BIN)/python -m pytest -m soak --numprocesses=3 --dist=load

cases: ready ## List each test case of the specification with the tests that cover it
	@$(BIN)/python -m pytest --list-cases

lock: ready ## Choose versions anew: requirements*.in → requirements*.txt
	@$(COMPILE) --upgrade requirements.in -o requirements.txt
	@$(COMPILE) --upgrade requirements-dev.in -o requirements-dev.txt
	@$(COMPILE) --upgrade requirements-tools.in -o requirements-tools.txt
