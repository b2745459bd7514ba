# One command for each thing one does with a checkout. Everything is installed into virtual
# environments inside it: .venv runs the sources as they are, .venv-compiled the wheel with its hot
# rooms compiled. VENV=... and COMPILED=... put them elsewhere, PYTHON=... names the Python to use,
# ARGS=... goes to the command that is run (make test ARGS="-k ledger").

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

VENV ?= .venv
COMPILED ?= .venv-compiled
PYTHON ?=
ARGS ?=

PIP := -m pip --disable-pip-version-check --quiet
MADE_OF := pyproject.toml setup.py .ci/venv
SOURCES := $(shell find proxy -name '*.py')
# The tests run drivers of Node, too; a machine without npm gets one as a wheel.
NODE := $(shell command -v npm >/dev/null || echo ,node)
# The folder that a command is started from never becomes a place to import from: what is tested is
# what is installed, in subprocesses too.
export PYTHONSAFEPATH := 1

.PHONY: help run test check fix compile test-compiled bench newer-pgbouncer instructions mutate soak fuzz clean
.DELETE_ON_ERROR:

help:
	@echo 'make run            an embedded PostgreSQL behind Penstock, with the DSN to paste'
	@echo 'make test           all tests, on the sources as they are'
	@echo 'make check          lint, format, types, direction of imports'
	@echo 'make fix            let ruff mend what it can'
	@echo 'make compile        build the wheel with compiled hot rooms (needs gcc and python3-dev)'
	@echo 'make test-compiled  all tests, on the compiled wheel'
	@echo 'make bench          beside PgBouncer and others, for half an hour (needs pgbouncer; see tests/bench/run.py)'
	@echo 'make newer-pgbouncer  build the one of a newer Debian, for make bench to compare with, too'
	@echo 'make instructions   what an acquire and a query cost of ours, counted (needs valgrind)'
	@echo 'make mutate         break the pool in known ways and see that the tests notice'
	@echo 'make soak, fuzz     the tests that run for long'
	@echo 'make clean          remove everything that was made here'

run: $(VENV)/.has-demo
	@$(VENV)/bin/penstock demo $(ARGS)

test: $(VENV)/.has-test
	@$(VENV)/bin/python -m pytest $(ARGS)

check: $(VENV)/.has-check
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict
	$(VENV)/bin/lint-imports

fix: $(VENV)/.has-check
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

compile: $(COMPILED)/.has-compiled

test-compiled: $(COMPILED)/.has-compiled
	@PENSTOCK_EXPECT_COMPILED=1 $(COMPILED)/bin/python -m pytest $(ARGS)

bench: $(COMPILED)/.has-compiled $(COMPILED)/.has-plots
	@$(COMPILED)/bin/python tests/bench/run.py $(ARGS)

newer-pgbouncer:
	@tests/bench/newer-pgbouncer build/pgbouncer

instructions: $(COMPILED)/.has-compiled
	@$(COMPILED)/bin/python tests/bench/instructions.py

mutate: $(VENV)/.has-test
	@$(VENV)/bin/python tests/mutations.py $(ARGS)

soak: $(VENV)/.has-test
	@$(VENV)/bin/python -m pytest -m soak $(ARGS)

fuzz: $(VENV)/.has-test $(VENV)/.has-fuzz
	@$(VENV)/bin/python -m pytest -m fuzz $(ARGS)

clean:
	rm -rf build dist *.egg-info .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find proxy tests -name __pycache__ -type d -prune -exec rm -rf {} +

# An editable install with one more group of dependencies (demo, test or check). It is never
# compiled, so no compiled file can grow stale beside its source.
$(VENV)/.has-%: $(MADE_OF)
	@.ci/venv '$(VENV)' '$(PYTHON)'
	@echo 'penstock: installing into $(VENV) what "$*" needs' >&2
	@$(VENV)/bin/python $(PIP) install 'setuptools>=77'
	@PENSTOCK_PURE=1 $(VENV)/bin/python $(PIP) install --no-build-isolation --editable '.[$*$(if $(filter test,$*),$(NODE))]'
	@touch $@

$(COMPILED)/.has-compiled: $(MADE_OF) $(SOURCES)
	@.ci/venv '$(COMPILED)' '$(PYTHON)'
	@echo 'penstock: compiling into $(COMPILED)' >&2
	@rm -rf '$(COMPILED)/wheel'
	@PENSTOCK_REQUIRE_COMPILED=1 $(COMPILED)/bin/python $(PIP) wheel --no-deps --wheel-dir '$(COMPILED)/wheel' .
	@$(COMPILED)/bin/python $(PIP) uninstall --yes penstock
	@$(COMPILED)/bin/python $(PIP) install "$$(echo '$(COMPILED)'/wheel/penstock-*.whl)[test$(NODE)]"
	@touch $@

# What `make bench` draws with; without it there is a page without drawings.
$(COMPILED)/.has-plots: pyproject.toml | $(COMPILED)/.has-compiled
	@echo 'penstock: installing into $(COMPILED) what draws curves' >&2
	@$(COMPILED)/bin/python $(PIP) install "$$(echo '$(COMPILED)'/wheel/penstock-*.whl)[bench]"
	@touch $@
