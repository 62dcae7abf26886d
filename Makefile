# Needs Python 3.10 or newer, make and git; everything else it fetches itself (as root on Debian, see tests/setup).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests and the demo run in a pid namespace of their own: the killer sees only what they started.
ALONE := $(BIN)/python -m tests.testbed.namespace
# A real Airflow where the kernel tells of forks: behind a fence, with a mount namespace of its own.
TOLD = unshare --mount $(BIN)/python -m pytest -m "e2e and initial_namespace" tests/e2e
# These signal nothing, so two processes may share them, each with Postgres servers of its own.
DATABASE_TESTS := tests/sql tests/migrations

.DEFAULT_GOAL := help
# a target sets up what it needs before it begins
.NOTPARALLEL:
.PHONY: help setup setup-demo demo unit pythons test model e2e bench chaos matrix mutants soak lint format docs pictures release-dump dist clean

help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## Install what the tests need of Debian, as root; else say how
	@BIN=$(BIN) PYTHON=$(PYTHON) tests/setup

setup-demo:
	@BIN=$(BIN) PYTHON=$(PYTHON) tests/setup demo

demo: setup-demo $(VENV)/.installed ## A real Airflow, killed; its run failed by one UPDATE; what happens
	$(ALONE) $(BIN)/python -m tests.testbed.demo

unit: $(VENV)/.installed ## The tests that start no server: no Postgres, no Docker, no Airflow; with coverage
	$(ALONE) $(BIN)/python -m pytest --unit --numprocesses 2 --cov=dagstop --cov-report=term:skip-covered $(ARGS)

pythons: $(VENV)/.installed ## The same on each Python that dagstop runs on, in environments made for it
	$(BIN)/python -m tests.pythons

test: setup lint ## All tests but those on real Airflows (ARGS=tests/sql for a part)
ifeq ($(ARGS),)
	$(MAKE) unit
	$(ALONE) $(BIN)/python -m pytest --servers -m "not e2e" --numprocesses 2 --dist worksteal $(DATABASE_TESTS)
	$(ALONE) $(BIN)/python -m pytest --servers -m "not e2e" $(addprefix --ignore=,$(DATABASE_TESTS))
	$(BIN)/python -m pytest -m initial_namespace tests/initial_namespace
else
	$(ALONE) $(BIN)/python -m pytest -m "not e2e" $(ARGS)
endif

model: setup $(VENV)/.installed ## The model of the protocol, checked by spin (a part of test; tests/model/README.md)
	$(ALONE) $(BIN)/python -m pytest -v tests/model $(ARGS)

e2e: setup $(VENV)/.installed ## The tests on real Airflows (AIRFLOW=2.11.2 MODE=web_only for a part)
	$(ALONE) $(BIN)/python -m pytest -m e2e $(ARGS)

bench: setup $(VENV)/.installed ## How fast, beside the least that anything could do (ARGS=groups for a part)
	$(ALONE) $(BIN)/python -m tests.bench $(ARGS)

chaos: setup $(VENV)/.installed ## What happens when things break; as root (ARGS="--small Docker" for a part)
	$(ALONE) unshare --net $(BIN)/python -m tests.chaos $(ARGS)

matrix: setup $(VENV)/.installed ## Every task, failed every way, anyone dead, on every Airflow (AIRFLOW=3.3.2 MODE=up for a part)
	MATRIX=full $(ALONE) $(BIN)/python -m pytest tests/e2e/test_matrix.py tests/e2e/never_breaks tests/e2e/test_celery.py \
		tests/e2e/test_cwl.py tests/e2e/test_docker_typed.py \
		tests/e2e/test_contained_celery.py $(ARGS)
ifeq ($(ARGS),)
	MATRIX=full $(TOLD)
endif

mutants: setup $(VENV)/.installed ## The code changed in a thousand places, one at a time: does a test fail? (ARGS="python case.py" for a part)
ifeq ($(ARGS),)
	nice -n 19 $(ALONE) $(BIN)/python -m tests.mutants python --sample 1000
	nice -n 19 $(ALONE) $(BIN)/python -m tests.mutants sql
else
	nice -n 19 $(ALONE) $(BIN)/python -m tests.mutants $(ARGS)
endif

soak: setup $(VENV)/.installed ## The random tests for an hour, each round with a new seed (ARGS="--minutes 5 tests/sql" for a part)
	nice -n 10 $(ALONE) $(BIN)/python -m tests.soak $(ARGS)

lint: $(VENV)/.installed ## Formatting, lint, types, which room imports which, plain English
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/python -m tests.words

format: $(VENV)/.installed ## Bring the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed ## Renew docs/reference.md, which is made from the code
	$(BIN)/python -m tests.reference

pictures: setup $(VENV)/.installed ## Renew the pictures of the README from a run of the demo; as root
	$(ALONE) unshare --uts sh -c 'hostname airflow-1 && exec $(BIN)/python -m tests.pictures'

release-dump: $(VENV)/.installed ## Keep what this release leaves in a database, for the next one's upgrade tests
	$(ALONE) $(BIN)/python -m tests.releases

dist: $(VENV)/.installed ## Build sdist and wheel, look into them, and try the wheel on a database
	$(ALONE) $(BIN)/python -m tests.dist

clean: ## Remove what the other targets made here
	rm -rf $(VENV) build dist .coverage listener/*.egg-info .mypy_cache .ruff_cache .hypothesis

$(VENV)/.installed: pyproject.toml
	@BIN=$(BIN) PYTHON=$(PYTHON) tests/setup python
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
