# make demo | test | lint | fmt | reference | clean.  Needs python3 (3.10 or newer) and make; everything goes into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP_FLAGS ?=
PIP    := $(BIN)/python -m pip --disable-pip-version-check
DEMO_FLAGS ?=
TEST_FLAGS ?= -n logical --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test lint fmt reference clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.installed  ## install, fetch a small model and evaluate it
	$(BIN)/idp eval $(DEMO_FLAGS)

test: lint $(VENV)/.browser $(VENV)/.model  ## lint, type-check and run the tests
	$(BIN)/python -m pytest $(TEST_FLAGS)

lint: $(VENV)/.installed-dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: $(VENV)/.installed-dev  ## format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

reference: $(VENV)/.installed-compress  ## train, compress and tune the embedded reference model again (hours)
	$(BIN)/python scripts/train_reference.py
	$(BIN)/python scripts/compress_reference.py
	$(BIN)/python scripts/write_atlas.py
	$(BIN)/idp bank build --model reference-sparse --output runs/build/sparse
	$(BIN)/idp bank build --model reference-gptq --output runs/build/gptq

clean:  ## remove the environment and all caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: pip runs again only when the dependencies changed.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "idp needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install $(PIP_FLAGS) -e . -c constraints.txt
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install $(PIP_FLAGS) -e '.[dev]' -c constraints.txt
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-compress: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install $(PIP_FLAGS) -e '.[compress]' -c constraints.txt
	@touch $@ $(VENV)/.installed

# Reports are looked at in a real browser; where none can be installed, those tests are skipped and say so.
$(VENV)/.browser: | $(VENV)/bin/python
	command -v chromium || command -v chromium-browser || command -v google-chrome || \
	  { test "$$(id -u)" = 0 && command -v apt-get && \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium > /dev/null; } || \
	  echo "no Chromium and no way to install one: tests of reports in a browser will be skipped"
	@touch $@

# A real language model, 93 MB; where it cannot be had, the tests that need it are skipped and say so.
$(VENV)/.model: idp/model/aliases.yaml $(VENV)/.installed-dev
	IDP_CACHE=$(abspath $(VENV))/idp-cache $(BIN)/idp models fetch smollm2-135m || \
	  echo "smollm2-135m cannot be had: tests of a real model will be skipped"
	@touch $@
