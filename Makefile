# Two commands are enough: `make run` and `make test`. Both install what they need first.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

BIN := .venv/bin
INSTALLED := .venv/.installed
REPORT := reports/first
EXAMPLES = $(wildcard tests/media/*.jpg)

.PHONY: help setup run demo test check fix docs bench torture extension clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## install everything into .venv (Debian: also python3-venv and chromium, when root)
	@:

$(INSTALLED): pyproject.toml constraints.txt .ci/setup
	@.ci/setup
	@touch $@

run: setup ## run the service: web page, API, queue, workers and engine, until Ctrl+C
	@$(BIN)/laescan serve

demo: setup ## scan the example pictures, write a report and open it where there is a desktop
	@$(BIN)/laescan scan $(EXAMPLES) --report $(REPORT)
	@if [ -n "$${DISPLAY:-}$${WAYLAND_DISPLAY:-}" ] && command -v xdg-open >/dev/null; then xdg-open $(REPORT)/report.html; fi

# Idle OpenMP threads that spin slow torch 20-fold when the cores are shared (measured: 100 -> 4 img/s).
test: export OMP_WAIT_POLICY := PASSIVE
test: export GOMP_SPINCOUNT := 0
test: check ## every check and every test
	@$(BIN)/python -m pytest

check: setup ## format, lint, types, who may import whom
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fix: setup ## format and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: setup ## write again what is generated: parts of README.md, the schema, the extension's types
	@$(BIN)/python tests/readme.py
	@$(BIN)/python tests/generated.py

bench: setup ## measure speed on this machine
	@set -e; for bench in tests/bench_*.py; do echo "== $$bench"; $(BIN)/python "$$bench"; done

torture: export OMP_WAIT_POLICY := PASSIVE
torture: setup ## break everything that can break here, 20 minutes, and write the table into SECURITY.md
	@$(BIN)/python tests/torture.py --write SECURITY.md

extension: setup ## pack the browser extension for Chromium and for Firefox into dist
	@$(BIN)/python extension/build.py dist

clean: ## remove caches, builds and the example report (.venv stays)
	@rm -rf build dist $(REPORT) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find scanner tests -name __pycache__ -type d -prune -exec rm -rf {} +
