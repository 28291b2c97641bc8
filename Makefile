PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help repro test test-slow malformed lint docs setup clean
.DEFAULT_GOAL := repro

help:  ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

# DVC runs one stage at a time, and two small networks learn faster in one thread each than in two one after the other.
# So up to JOBS variants that are not up to date are trained and judged side by side, each by a DVC of its own with its
# share of the cores (of OMP_NUM_THREADS, if that is set); on a GPU one at a time.
JOBS ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo 1 || echo 2)
CORES = $$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
STALE = $$(echo "$$status" | grep -oE '"(train|evaluate)@[^"]+"' | sed 's/.*@//; s/"//' | sort -u)

repro: setup  ## Set up, run the pipeline on params.yaml's profile, print the results (default)
	@[ "$(JOBS)" -ge 1 ] 2>/dev/null || { echo "JOBS must be 1 or more, not '$(JOBS)'"; exit 1; }
	@condmix repair
	dvc repro judge prior pack
	@status=$$(dvc status --json) || exit; variants=$(STALE); [ -n "$$variants" ] || exit 0; \
	cores=$(CORES); jobs=$$(printf '%s\n' $(JOBS) $$cores $$(echo "$$variants" | wc -l) | sort -n | head -n 1); \
	export CONDMIX_SIDE_BY_SIDE=$$jobs OMP_NUM_THREADS=$$(( (cores + jobs - 1) / jobs )); \
	echo "$$variants" | xargs -P $$jobs -I {} sh -c \
		'dvc --wait-for-lock repro --single-item train@{} evaluate@{} || exit 1'  # at DVC's own 255 xargs would stop
	dvc repro
	@condmix summary
	@echo "shell   . $(BIN)/activate   (once in every terminal: it puts condmix, dvc and mlflow on the PATH)"

# Each process computes in one thread: the tests are small, and there are as many processes as cores.
test: setup  ## Set up, run the tests
	OMP_NUM_THREADS=1 python -m pytest -n auto --maxprocesses 4

# Real data (../shared) and long runs.
test-slow: setup  ## Tests on real data and long runs
	python -m pytest -m slow

# What condmix answers to thousands of malformed inputs; ARGS='--area models --every 10' for some of them.
malformed: setup  ## Thousands of malformed inputs; ARGS='--area models --every 10' for some
	PYTHONPATH=src:tests/support python -m malformed $(ARGS)

lint: setup  ## ruff, mypy, import contracts, dvc.yaml's lists of source files
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	python -m condmix.pipeline --check

docs: setup  ## The documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 mkdocs build --quiet

setup: $(VENV)/.installed  ## The environment in .venv

# Versions are held by constraints.txt, except torch's: its build depends on the machine.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "condmix needs Python 3.11 or newer; $$($(PYTHON) --version) was found: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@free() { df -Ph "$$1" | awk 'NR == 2 {print $$4 " in " $$6}'; }; \
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' || { \
		echo "pip could not install condmix, for the reason above. It needs 7 GB of disk for the environment and 3 GB" \
			"for temporary files; free now: $$(free .), $$(free "$${TMPDIR:-/tmp}"). Make room, then run make again."; exit 1; }
	@$(BIN)/python -m condmix.runtime.native
	@git rev-parse --git-dir >/dev/null 2>&1 || $(BIN)/dvc config --local core.no_scm true
	@touch $@

clean:  ## Remove the environment, checkpoints and partial downloads
	rm -rf $(VENV) .checkpoints data/*/partial
