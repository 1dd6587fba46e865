# `make` prints what there is. Variables: API=live, SCALE=100, SQL="select …".
PYTHON ?= python3
API ?= sample
SCALE ?= 1
SQL ?=
URL ?=
TRIAL ?=
AUDIT ?=
DROP ?=
BUILD ?=

BIN := .venv/bin
STARTED := $(shell date +%s)
# In the order of tests/conftest.py: xdist would begin with the files of most tests.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadgroup --no-loadscope-reorder
# As they are: neither make nor the shell expands a $$ in an address or a name.
$(foreach word,NAME URL RECORDS KEY LOGIN,$(eval override $(word) := $$(value $(word))))
export SQL NAME URL RECORDS KEY LOGIN

.DEFAULT_GOAL := help
.PHONY: help run-local replay new-source preview deploy deploy-plan up dbt-diff docs reset psql test test-chaos bench format lint types check lock clean install install-dev

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

run-local: install ## the whole pipeline once on this machine (API=live, SCALE=100)
	@$(BIN)/python -m commands.run_local --api $(API) --scale $(SCALE) --started-at $(STARTED)

replay: install ## load again what was set aside (elt.rejects), after a fix
	@$(BIN)/python -m commands.run_local --api $(API) --scale $(SCALE) --started-at $(STARTED) --replay

new-source: install ## begin a source: NAME=github URL=https://… [RECORDS=items] [KEY=id] [LOGIN=…]
	@$(BIN)/python -m commands.new_source --name="$$NAME" --url="$$URL" --records="$$RECORDS" --key="$$KEY" --login="$$LOGIN"

preview: install ## first records of SOURCE=github [RESOURCE=issues] [PARTITION="id=1"], nothing written
	@$(BIN)/python -m commands.preview --source "$(SOURCE)" --resource "$(RESOURCE)" --partition "$(PARTITION)"

up: install-dev ## the whole system on this machine: UI, schedules, worker; until Ctrl-C
	@$(BIN)/python -m commands.up

deploy: install ## blocks, work pool, deployments, automations: the server as the files say
	@$(BIN)/python -m deployments.deploy

deploy-plan: install ## what `make deploy` would change on the server, which stays as it is
	@$(BIN)/python -m deployments.deploy --plan

dbt-diff: install ## what the changed dbt models would change in what is published; writes nothing there
	@$(BIN)/python -m commands.dbt_diff --name "$(TRIAL)" --api $(API) --scale $(SCALE) $(if $(AUDIT),--audit) $(if $(DROP),--drop)

docs: install ## dbt's pages with the lineage of all models, until Ctrl-C; BUILD=7 as that build kept them
	@$(BIN)/python -m commands.docs --api $(API) --scale $(SCALE) $(if $(BUILD),--build $(BUILD))

reset: install ## delete the rows of SOURCE=northwind RESOURCE=orders here; the next load reads all
	@$(BIN)/python -m commands.reset --source "$(SOURCE)" --resource "$(RESOURCE)" --api $(API) --scale $(SCALE)

psql: install ## a prompt on the local database, or SQL="select …" for its bare rows
	@$(BIN)/python -m commands.psql --api $(API) --scale $(SCALE) --sql "$$SQL"

test: install-dev ## the test suite, on the embedded Postgres
	@$(PYTEST)

format: install-dev ## format the code with ruff
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

lint: install-dev ## ruff and sqlfluff
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/sqlfluff lint -q --disable-progress-bar $(addprefix dbt_project/,models macros tests)

types: install-dev ## mypy --strict
	@$(BIN)/mypy

test-chaos: install-dev ## the long version: every kill, every fault of an API, every automation
	@CHAOS=full $(PYTEST) tests/chaos tests/fault_matrix tests/deployments tests/commands tests/flows

bench: .venv/.installed-bench ## loads measured side by side; writes docs/benchmark.md, half an hour
	@$(BIN)/python -m tests.benchmark

check: lint types test ## all that CI runs

install: .venv/.installed ## the locked packages into .venv; nothing to do the second time

install-dev: .venv/.installed-dev ## what the tests and linters need on top

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed; name one with: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/.installed: requirements.txt | .venv/bin/python
	@echo "Installing the locked packages into .venv (once, a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt
	@touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	@echo "Installing what tests and linters need (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-dev.txt
	@touch $@

.venv/.installed-bench: requirements-bench.txt .venv/.installed-dev
	@echo "Installing what the benchmark compares with (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-bench.txt
	@touch $@

lock: install-dev ## write requirements*.txt anew from requirements*.in
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes requirements.in -o requirements.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes requirements-worker.in -c requirements.txt -o requirements-worker.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes requirements-dev.in -o requirements-dev.txt
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes requirements-bench.in -o requirements-bench.txt

clean: ## remove what the other targets made, the local database too; .venv stays
	@rm -rf .local dbt_project/target dbt_project/logs .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
