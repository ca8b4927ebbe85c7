# embedx: `make` lists what can be made. Every target installs what it needs into .venv, once, and no more.

PYTHON ?= python3
EMBEDX := .venv/bin/python -m embedx
STUDIES := mnist1d spuco-mnist scale
TINY := tiny:untrained tiny:narrow tiny:broad
DEMO := $(TINY) lite:0
RANKS := $(or $(value BACKBONE),tiny:broad)
MODELS := $(TINY) $(filter-out $(TINY),$(RANKS))
FIRST := resnet50

# The same in every place and for every caller. Modules are run with `-m`, as the first line of a script such as
# .venv/bin/embedx cannot name every path; nothing of the user's Python is looked at; pip installs into .venv and nowhere
# else; Python 3.11 reads the path of an editable package in the locale's encoding. Variables are taken as they stand,
# a $ is no reference, and quoted for the shell.
unexport $(filter PYTHON%,$(.VARIABLES)) PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT
export LC_ALL := C.UTF-8
ifdef CACHE
export EMBEDX_CACHE := $(value CACHE)
endif
quoted = '$(subst ','\'',$(1))'
each = $(foreach one,$(value $(2)),$(1) $(call quoted,$(one)))
root = $(if $(value ROOT),--root $(call quoted,$(value ROOT)))

.NOTPARALLEL: # each target's work is for all cores, and benchmarks must not disturb each other
.DEFAULT_GOAL := help
.PHONY: help install demo spuriosity-demo label-demo studies test test-slow lint format check docs bench bench-extract bench-probes bench-spuriosity bench-repair bench-annotation compare compare-waterbirds compare-celeba compare-utkface tiny-weights clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

# What embedx itself needs; and, each with a mark of its own, what the extras need. An unpacked archive has no links.
.venv/installed: pyproject.toml
	for name in extractors probes; do test -d embedx/$$name || ln -sfn ../$$name embedx/$$name; done
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --no-user --editable .
	touch $@

.venv/installed-%: .venv/installed
	.venv/bin/python -m pip install --quiet --no-user --editable '.[$*]'
	touch $@

install: .venv/installed ## Create .venv with embedx and what it needs

demo: .venv/installed-lite .venv/installed-web ## The main job, end to end, offline: extract, compare, results/demo/report.html
	$(EMBEDX) extract demo $(call each,-b,DEMO)
	$(EMBEDX) compare demo $(call each,-b,DEMO)

spuriosity-demo: .venv/installed$(if $(filter lite:%,$(RANKS)),-lite) ## Without group labels, offline: what a head leans on, how badly, and the fix; results/planted/spuriosity/site: [BACKBONE=lite:0]
	$(EMBEDX) extract planted $(call each,-b,MODELS)
	$(EMBEDX) spuriosity discover planted $(call each,-b,RANKS)
	$(EMBEDX) spuriosity panels planted $(call each,-b,RANKS)
	$(EMBEDX) spuriosity annotate planted $(call each,-b,RANKS) --from attributes=mark,ground,companion
	$(EMBEDX) spuriosity rank planted $(call each,-b,RANKS)
	$(EMBEDX) spuriosity gap planted $(call each,-b,RANKS) $(call each,--model,MODELS)
	$(EMBEDX) spuriosity tune planted $(call each,-b,RANKS)
	$(EMBEDX) spuriosity review planted $(call each,-b,RANKS)
	$(EMBEDX) spuriosity site planted $(call each,-b,RANKS)

label-demo: .venv/installed-web$(if $(filter lite:%,$(RANKS)), .venv/installed-lite) ## Label features of the planted demo in a browser: [BACKBONE=lite:0]
	$(EMBEDX) extract planted $(call each,-b,RANKS)
	$(EMBEDX) spuriosity discover planted $(call each,-b,RANKS)
	$(EMBEDX) spuriosity panels planted $(call each,-b,RANKS)
	$(EMBEDX) annotate planted $(call each,-b,RANKS)

studies: .venv/installed-lite ## Every study that needs no download, in its reduced form: results/studies
	for study in $(STUDIES); do $(EMBEDX) study "$$study" --small || exit; done

study-%: .venv/installed-lite ## One study in full, such as study-mnist1d: results/studies
	$(EMBEDX) study $*

compare: .venv/installed ## Extract what is missing, then compare: DATASET=... ROOT=... BACKBONES="..." [HEADS="..."]
	@$(if $(and $(value DATASET),$(value BACKBONES)),:,echo 'usage: make compare DATASET=waterbirds ROOT=folder BACKBONES="timm:resnet50.tv_in1k"'; exit 2)
	$(EMBEDX) extract $(call quoted,$(value DATASET)) $(root) $(call each,-b,BACKBONES)
	$(EMBEDX) compare $(call quoted,$(value DATASET)) $(call each,-b,BACKBONES) $(call each,--head,HEADS)

# Fetched unless prepared already or ROOT says where the files lie. Other backbones than the study's are compared alone.
define published
$(if $(root),,test -e "$${EMBEDX_CACHE:-cache}/$(1)/manifest.json" || $(EMBEDX) data get $(1))
$(if $(root)$(value BACKBONES),$(EMBEDX) extract $(1) $(root) $(call each,-b,$(if $(value BACKBONES),BACKBONES,FIRST)))
$(if $(value BACKBONES),$(EMBEDX) compare $(1) $(call each,-b,BACKBONES) $(call each,--head,HEADS),$(EMBEDX) study $(1))
endef

compare-waterbirds: .venv/installed ## Fetch Waterbirds, then its study (11.5 GB of weights): [ROOT=...] [BACKBONES="..."]
	$(call published,waterbirds)

compare-celeba: .venv/installed ## The same for CelebA, whose files are fetched by hand: [ROOT=...]
	$(call published,celeba)

compare-utkface: .venv/installed ## The same for UTKFace, whose archive is fetched by hand: [ROOT=...]
	$(call published,utkface)

test: .venv/installed-test ## The tests (under five minutes)
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --dist loadfile  # a process for each core, of one thread each

test-slow: .venv/installed-dev ## The slow tests: kills, Ray, the wheel, and the README's commands
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m slow -n auto --dist loadfile

lint: .venv/installed-dev ## Style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python -m basedpyright --project pyproject.toml

format: .venv/installed-dev ## Put the code into its format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

check: lint test ## What a commit has to pass

docs: .venv/installed-docs ## The documentation, with what its commands print now (some minutes): site/index.html
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict --quiet -f docs/_site/mkdocs.yml

bench: bench-extract bench-probes bench-spuriosity bench-repair ## The benchmarks
	.venv/bin/python -m benchmarks.comparison
	.venv/bin/python -m benchmarks.intervals
	.venv/bin/python -m benchmarks.intervals --clusters beta
	.venv/bin/python -m benchmarks.clustered_verdicts
	.venv/bin/python -m benchmarks.verdict

bench-extract: .venv/installed ## How near extraction comes to what the machine allows
	.venv/bin/python -m benchmarks.extraction
	.venv/bin/python -m benchmarks.changed

bench-probes: .venv/installed ## How much faster heads are fitted together than one by one
	.venv/bin/python -m benchmarks.probes

bench-spuriosity: .venv/installed ## Ranking and gap at the size of ImageNet, against reading the file (11 GB of disk)
	.venv/bin/python -m benchmarks.spuriosity

bench-annotation: .venv/installed-test ## How soon the annotation page can be used, and what 1,000 classes cost (needs chromium)
	.venv/bin/python -m benchmarks.annotation

bench-repair: .venv/installed ## A sweep of repairs at the size of ImageNet, against one run after another
	.venv/bin/python -m benchmarks.repair

tiny-weights: .venv/installed ## Train the networks that come along anew (some ten minutes)
	.venv/bin/python -m embedx.extract.pretrain
	.venv/bin/python -m embedx.extract.pretrain_signals

clean: ## Remove build products and results, never the caches
	rm -rf results dist site .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
