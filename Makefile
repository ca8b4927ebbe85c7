# embedx: `make` lists what can be made. Every target installs what it needs into .venv, once.

PYTHON ?= python3
CACHE ?= cache
BIN := .venv/bin
EMBEDX := $(BIN)/embedx --cache $(CACHE)
DEMO := tiny:untrained tiny:narrow tiny:broad

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint format check bench bench-extract compare tiny-weights clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

install: .venv/installed ## Create .venv with embedx and everything it needs

demo: .venv/installed ## The main job, end to end, offline: extract, compare, results/demo/report.html
	$(EMBEDX) extract demo $(addprefix -b ,$(DEMO))
	$(EMBEDX) compare demo $(addprefix -b ,$(DEMO))

compare: .venv/installed ## Extract what is missing, then compare: DATASET=... ROOT=... BACKBONES="..." [HEADS="..."]
	@test -n "$(DATASET)" -a -n "$(BACKBONES)" || { echo 'usage: make compare DATASET=waterbirds ROOT=folder BACKBONES="timm:resnet50.tv_in1k"'; exit 2; }
	$(EMBEDX) extract $(DATASET) $(if $(ROOT),--root '$(ROOT)') $(addprefix -b ,$(BACKBONES))
	$(EMBEDX) compare $(DATASET) $(addprefix -b ,$(BACKBONES)) $(addprefix --head ,$(HEADS))

test: .venv/installed ## The tests (under five minutes)
	$(BIN)/python -m pytest

test-slow: .venv/installed ## The slow tests: kills, and the README's commands
	$(BIN)/python -m pytest -m slow

lint: .venv/installed ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: .venv/installed ## Put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test ## What a commit has to pass

bench: bench-extract ## The benchmarks
	$(BIN)/python -m benchmarks.intervals

bench-extract: .venv/installed ## How near extraction comes to what the machine allows
	$(BIN)/python -m benchmarks.extraction

tiny-weights: .venv/installed ## Train the demo's networks anew (about two minutes)
	$(BIN)/python -m embedx.pretrain

clean: ## Remove build products and results, never the caches
	rm -rf results dist .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
