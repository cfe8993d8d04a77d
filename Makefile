# Two commands are enough: `make run` and `make test`. Both install what they need first.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

BIN := .venv/bin
INSTALLED := .venv/.installed
REPORT := reports/first
EXAMPLES = $(wildcard tests/media/*.jpg)

.PHONY: help setup run demo test check fix docs bench torture gpu extension lock sbom audit images clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## install everything into .venv (Debian, when root: also python3-venv, and chromium on a screen for the tests)
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
	@$(BIN)/python -m pytest -n 2 --dist loadfile
	@$(BIN)/python tests/figures.py --glance

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

bench: setup ## measure speed on this machine and write it into README.md; minutes, and nothing else should run
	@$(BIN)/python tests/figures.py --write

torture: export OMP_WAIT_POLICY := PASSIVE
torture: setup ## break everything that can break here, 20 minutes, and write the table into SECURITY.md
	@$(BIN)/python tests/torture.py --write SECURITY.md

gpu: setup ## measure all that only an NVIDIA GPU can tell, as Markdown (ARGS=--quick: does it run?)
	@$(BIN)/python tests/bench_gpu.py $(ARGS)

extension: setup ## pack the browser extension for Chromium and for Firefox into dist
	@$(BIN)/python extension/build.py dist

# What a release needs and nothing else does: in an environment of its own.
TOOLS := build/tools
$(TOOLS)/.installed: docker/tools.txt
	@test -x $(TOOLS)/bin/python || python3 -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install -q --disable-pip-version-check -r docker/tools.txt
	@touch $@

lock: $(TOOLS)/.installed ## pin every wheel that an image may install, with its sha256, in docker/locks
	@UV=$(TOOLS)/bin/uv docker/lock.sh

sbom: $(TOOLS)/.installed ## write what the images are made of into dist, as CycloneDX
	@mkdir -p dist
	@set -e; for image in api worker-cpu worker-cuda; do PYTHONWARNINGS=ignore $(TOOLS)/bin/cyclonedx-py requirements \
	    docker/locks/$$image.txt --pyproject pyproject.toml --mc-type application --output-reproducible \
	    --output-file dist/laescan-$$image.cdx.json; echo dist/laescan-$$image.cdx.json; done

audit: $(TOOLS)/.installed ## look every locked package up in PyPI's advisories; fails where it cannot ask
	@set -e; for image in api worker-cpu; do $(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes \
	    --progress-spinner off --requirement docker/locks/$$image.txt; done

images: $(TOOLS)/.installed ## lint the manifests, build the images, scan in them (what is there: docker or podman, kubectl, promtool)
	@PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" docker/check.sh

clean: ## remove caches, builds and the example report (.venv stays)
	@rm -rf build dist $(REPORT) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find scanner tests -name __pycache__ -type d -prune -exec rm -rf {} +
