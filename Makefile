# `make` prints what there is. Variables: API=live, SCALE=100, SQL="select …".
PYTHON ?= python3
API ?=
SCALE ?= 1
SQL ?=
URL ?=
TRIAL ?=
AUDIT ?=
DROP ?=
BUILD ?=
UPGRADE ?=
LIMIT ?=
SINCE ?=
PORT ?= 0
TESTS ?=

BIN := .venv/bin
STARTED := $(shell date +%s)
# uv where it is on PATH, pip elsewhere. Both check the hashes of the locked files.
INSTALL := $(if $(shell command -v uv 2>/dev/null),uv pip install --python $(BIN)/python --compile-bytecode,$(BIN)/python -m pip install --disable-pip-version-check) --quiet --no-deps --require-hashes -r
# In the order of tests/conftest.py: xdist would begin with the files of most tests.
PYTEST := $(BIN)/python -m pytest -n 4 --dist loadgroup --no-loadscope-reorder
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes $(if $(UPGRADE),--upgrade)
# As they are: neither make nor the shell expands a $$ in an address or a name.
$(foreach word,NAME URL RECORDS KEY LOGIN BODY FROM TO RESOURCES LIMIT SINCE,$(eval override $(word) := $$(value $(word))))
export SQL NAME URL RECORDS KEY LOGIN BODY FROM TO RESOURCES LIMIT SINCE

.DEFAULT_GOAL := help
.PHONY: help run-local replay new-source remove-example upgrade preview record prove deploy deploy-plan undeploy up dbt-diff docs report site reset psql test test-chaos bench format lint types check lock clean install install-dev

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

run-local: install ## run the pipeline once here: [SOURCE=shop RESOURCES=orders,lines] [LIMIT=1000] [SINCE=2026-01-31] [API=live]
	@$(BIN)/python -m commands.run_local --source="$(SOURCE)" --resources="$$RESOURCES" --limit="$$LIMIT" --since="$$SINCE" --api "$(API)" --scale $(SCALE) --started-at $(STARTED)

replay: install ## load rejected records (elt.rejects) again, after a fix
	@$(BIN)/python -m commands.run_local --api "$(API)" --scale $(SCALE) --started-at $(STARTED) --replay

new-source: install ## create a source and load a page, or add to one: NAME=shop URL=https://…/orders, or NAME=shop FROM=openapi.json RESOURCES=orders
	@$(BIN)/python -m commands.new_source --name="$$NAME" --url="$$URL" --records="$$RECORDS" --key="$$KEY" --login="$$LOGIN" --body="$$BODY" --from="$$FROM" --resources="$$RESOURCES" --load

remove-example: install ## remove the example's sources, models and tests, to begin with your own
	@$(BIN)/python -m commands.remove_example

upgrade: install ## merge a later version of the pipeline into this clone: [FROM=https://…] [TO=v2]
	@$(BIN)/python -m commands.upgrade --from="$$FROM" --to="$$TO"

preview: install ## show the first records of SOURCE=github [RESOURCE=issues] [PARTITION="id=1"]; writes nothing
	@$(BIN)/python -m commands.preview --source "$(SOURCE)" --resource "$(RESOURCE)" --partition "$(PARTITION)"

record: install-dev ## keep real answers of SOURCE=github [RESOURCE=issues] for `make test` to replay
	@$(BIN)/python -m commands.record --source "$(SOURCE)" --resource "$(RESOURCE)"

prove: install-dev ## load the recorded answers of SOURCE=github under every API fault and kill; writes a certificate
	@$(BIN)/python -m commands.prove --source "$(SOURCE)" --resource "$(RESOURCE)" $(if $(MINUTES),--minutes $(MINUTES))

up: install-dev ## run the whole system on this machine until Ctrl-C: UI [PORT=4200], schedules, worker
	@$(BIN)/python -m commands.up --port=$(PORT)

deploy: install ## apply blocks, work pool, deployments and automations to the server
	@$(BIN)/python -m deployments.deploy

deploy-plan: install ## show what `make deploy` would change on the server; changes nothing
	@$(BIN)/python -m deployments.deploy --plan

undeploy: install ## remove all that `make deploy` made for ENVIRONMENT=staging from the server
	@$(BIN)/python -m deployments.undeploy

dbt-diff: install ## compare the changed dbt models with the published ones; publishes nothing
	@$(BIN)/python -m commands.dbt_diff --name "$(TRIAL)" --api "$(API)" --scale $(SCALE) $(if $(AUDIT),--audit) $(if $(DROP),--drop)

docs: install ## serve dbt's docs with the lineage of all models until Ctrl-C; BUILD=7 for those of a build
	@$(BIN)/python -m commands.docs --api "$(API)" --scale $(SCALE) $(if $(BUILD),--build $(BUILD))

report: install-dev ## write .local/report.html: charts of the local database, or of WAREHOUSE_URL's
	@$(BIN)/python -m commands.report --api $(API) --scale $(SCALE)

site: install-dev ## build the pages of docs/ as a website in .local/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

reset: install ## delete the local rows of SOURCE=shop RESOURCE=orders; the next load reads everything
	@$(BIN)/python -m commands.reset --source "$(SOURCE)" --resource "$(RESOURCE)" --api "$(API)" --scale $(SCALE)

psql: install ## open a prompt on the local database, or print the rows of SQL="select …"
	@$(BIN)/python -m commands.psql --api "$(API)" --scale $(SCALE) --sql "$$SQL"

test: install-dev ## the test suite, on the embedded Postgres; [TESTS=tests/owner] of what you added, in two minutes
	@$(PYTEST) $(TESTS)

format: install-dev ## format the code with ruff
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

lint: install-dev ## ruff and sqlfluff
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/sqlfluff lint -q --disable-progress-bar $(addprefix dbt_project/,models macros tests)

types: install-dev ## mypy --strict
	@$(BIN)/mypy

test-chaos: install-dev ## the whole suite with its slow tests: every kill and API fault, `make up`; [TESTS=tests/flows]
	@CHAOS=full $(PYTEST) $(TESTS)

bench: .venv/.installed-bench ## compare load speeds with other tools; writes docs/benchmark.md, half an hour
	@$(BIN)/python -m tests.benchmark

check: lint types test ## everything that CI runs

install: .venv/.installed ## install the locked packages into .venv, once

install-dev: .venv/.installed-dev ## install what the tests and linters need in addition

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "Python 3.11, 3.12 or 3.13 is needed, and $(PYTHON) is another version (dbt does not support 3.14 yet). Name one: make PYTHON=python3.13 …"; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/.installed: requirements.txt | .venv/bin/python
	@echo "Installing the locked packages into .venv (once, a minute or two) ..."
	@$(INSTALL) requirements.txt
	@touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	@echo "Installing what tests and linters need (once) ..."
	@$(INSTALL) requirements-dev.txt
	@touch $@

.venv/.installed-bench: requirements-bench.txt .venv/.installed-dev
	@echo "Installing what the benchmark compares with (once) ..."
	@$(INSTALL) requirements-bench.txt
	@touch $@

lock: install-dev ## regenerate requirements*.txt from requirements*.in; UPGRADE=1 takes the newest versions they allow
	@$(COMPILE) requirements.in -o requirements.txt
	@$(COMPILE) requirements-worker.in -c requirements.txt -o requirements-worker.txt
	@$(COMPILE) requirements-dask.in -o requirements-dask.txt
	@$(COMPILE) requirements-dev.in -o requirements-dev.txt
	@$(COMPILE) requirements-bench.in -o requirements-bench.txt

clean: ## remove what the other targets created, including the local database; keeps .venv
	@rm -rf .local dbt_project/target dbt_project/logs .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
