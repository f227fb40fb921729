# Everything is done from here; a fresh machine needs git, make and Python 3.11 to 3.13.
.DEFAULT_GOAL := help
.PHONY: help run doctor test check test-browser test-containers bench load clean moved
unexport VIRTUAL_ENV

PYTHON := .venv/bin/python
# The environment is made again when one of these changes, when its Python is gone, and when this folder was moved.
SOURCES := uv.lock pyproject.toml $(wildcard */pyproject.toml) scripts/setup
ifneq ($(shell test -x $(PYTHON) && cat .venv/.synced 2>/dev/null),$(CURDIR))
SOURCES += moved
endif

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

run: .venv/.synced ## start the five services; Ctrl-C stops them
	@$(PYTHON) scripts/run.py

doctor: .venv/.synced ## whether database, bucket and peers answer, as the settings have it
	@$(PYTHON) scripts/doctor.py

test: .venv/.synced ## all tests that need no browser
	$(PYTHON) -m pytest tests/unit tests/contract tests/e2e

check: .venv/.synced ## lint, format, types, who may import whom, how libraries are used
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy
	$(PYTHON) -m mypy scripts
	MYPYPATH=bench:tests $(PYTHON) -m mypy bench --follow-imports=silent
	.venv/bin/lint-imports
	$(PYTHON) scripts/check_libraries.py

test-browser: export CHROMIUM := $(or $(CHROMIUM),$(shell command -v chromium || command -v chromium-browser || command -v google-chrome))
test-browser: .venv/.synced-browser ## a page in a real Chromium
	@test -n "$$CHROMIUM" || { echo "Chromium is missing: run 'apt install chromium' (Debian; with sudo), or set CHROMIUM to its path" >&2; exit 1; }
	$(PYTHON) -m pytest tests/browser

test-containers: .venv/.synced ## the five images, and compose over them; needs a Docker engine, or .ci/containers
	$(PYTHON) -m pytest tests/containers

bench: .venv/.synced-bench ## speed, beside nginx and Express in one run: some 15 minutes; or beside another checkout: BENCH='--beside ../before'
	@$(PYTHON) bench $(BENCH)

load: .venv/.synced-bench ## many people for ten minutes against `make run`, and then their books: LOAD='--users 20 --minutes 1'
	@$(PYTHON) bench/load.py $(LOAD)

clean: ## remove the environment and the caches; your .env files and data stay
	rm -rf .venv .uv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.synced: $(SOURCES)
	@scripts/setup

# Beside the other stamp: playwright is a big download that only these tests need.
.venv/.synced-browser: .venv/.synced
	@scripts/setup --inexact --group browser
	@touch -r .venv/.synced $@

.venv/.synced-bench: .venv/.synced
	@scripts/setup --inexact --group bench
	@touch -r .venv/.synced $@
