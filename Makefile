# embedx: `make` lists what can be made. Every target installs what it needs into .venv, once.

PYTHON ?= python3
CACHE ?= cache
BIN := .venv/bin
EMBEDX := $(BIN)/embedx --cache $(CACHE)
DEMO := tiny:untrained tiny:narrow tiny:broad
PAPERS := resnet50 resnet101 vit-b16-in1k swag-regnety-16gf-e2e swag-regnety-32gf-e2e swag-regnety-128gf-e2e \
	swag-vit-b16-e2e swag-vit-l16-e2e swag-vit-h14-e2e clip-rn50 clip-vit-l14 dinov2-vit-b14 robust-resnet50

.DEFAULT_GOAL := help
.PHONY: help install demo spuriosity-demo test test-slow lint format check bench bench-extract bench-probes bench-spuriosity compare compare-waterbirds compare-celeba compare-utkface tiny-weights clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

install: .venv/installed ## Create .venv with embedx and everything it needs

demo: .venv/installed ## The main job, end to end, offline: extract, compare, results/demo/report.html
	$(EMBEDX) extract demo $(addprefix -b ,$(DEMO))
	$(EMBEDX) compare demo $(addprefix -b ,$(DEMO))

spuriosity-demo: .venv/installed ## Without group labels, offline: what a head leans on, how badly, and the fix; results/planted/spuriosity/site
	$(EMBEDX) extract planted $(addprefix -b ,$(DEMO))
	$(EMBEDX) spuriosity discover planted -b tiny:broad
	$(EMBEDX) spuriosity panels planted -b tiny:broad
	$(EMBEDX) spuriosity annotate planted -b tiny:broad --from attributes=mark,ground,companion
	$(EMBEDX) spuriosity rank planted -b tiny:broad
	$(EMBEDX) spuriosity gap planted -b tiny:broad $(addprefix --model ,$(DEMO))
	$(EMBEDX) spuriosity tune planted -b tiny:broad
	$(EMBEDX) spuriosity review planted -b tiny:broad
	$(EMBEDX) spuriosity site planted -b tiny:broad

compare: .venv/installed ## Extract what is missing, then compare: DATASET=... ROOT=... BACKBONES="..." [HEADS="..."]
	@test -n "$(DATASET)" -a -n "$(BACKBONES)" || { echo 'usage: make compare DATASET=waterbirds ROOT=folder BACKBONES="timm:resnet50.tv_in1k"'; exit 2; }
	$(EMBEDX) extract $(DATASET) $(if $(ROOT),--root '$(ROOT)') $(addprefix -b ,$(BACKBONES))
	$(EMBEDX) compare $(DATASET) $(addprefix -b ,$(BACKBONES)) $(addprefix --head ,$(HEADS))

# Fetched unless prepared already or ROOT says where the files lie; what has a cache is not extracted again.
define published
$(if $(ROOT),,test -e $(CACHE)/$(1)/manifest.json || $(EMBEDX) data get $(1))
$(EMBEDX) extract $(1) $(if $(ROOT),--root '$(ROOT)') $(addprefix -b ,$(or $(BACKBONES),$(PAPERS)))
$(EMBEDX) compare $(1) $(addprefix -b ,$(or $(BACKBONES),$(PAPERS))) $(addprefix --head ,$(HEADS))
endef

compare-waterbirds: .venv/installed ## Fetch Waterbirds, extract with the papers' backbones (11 GB of weights), compare: [BACKBONES="..."]
	$(call published,waterbirds)

compare-celeba: .venv/installed ## The same for CelebA, whose files are fetched by hand: [ROOT=...]
	$(call published,celeba)

compare-utkface: .venv/installed ## The same for UTKFace, whose archive is fetched by hand: [ROOT=...]
	$(call published,utkface)

test: .venv/installed ## The tests (under five minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile  # a process for each core, of one thread each

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

bench: bench-extract bench-probes bench-spuriosity ## The benchmarks
	$(BIN)/python -m benchmarks.comparison
	$(BIN)/python -m benchmarks.intervals
	$(BIN)/python -m benchmarks.verdict

bench-extract: .venv/installed ## How near extraction comes to what the machine allows
	$(BIN)/python -m benchmarks.extraction
	$(BIN)/python -m benchmarks.changed

bench-probes: .venv/installed ## How much faster heads are fitted together than one by one
	$(BIN)/python -m benchmarks.probes

bench-spuriosity: .venv/installed ## Ranking and gap at the size of ImageNet, against reading the file (11 GB of disk)
	$(BIN)/python -m benchmarks.spuriosity

tiny-weights: .venv/installed ## Train the demo's networks anew (about two minutes)
	$(BIN)/python -m embedx.pretrain

clean: ## Remove build products and results, never the caches
	rm -rf results dist .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
