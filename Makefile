# The commands of this repository. Each makes what it needs in .venv; nothing has to be set up first but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check bench docs clean

help:  ## say what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-10s %s\n", $$1, $$2 }'

demo: $(VENV)/.ready-demo  ## compare a sentence encoder with a fine-tuned copy of it; results in tunescope-out/
	$(BIN)/tunescope demo --out tunescope-out

test: $(VENV)/.ready-dev  ## the tests, except the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-slow: $(VENV)/.ready-dev  ## the slow tests: coverage of the intervals, interrupted runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --numprocesses auto

check: $(VENV)/.ready-dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy src

bench: $(VENV)/.ready-bench  ## measure time and memory against the nearest libraries
	$(BIN)/python -m benchmarks

docs: $(VENV)/.ready-dev  ## write the generated pages of docs/
	$(BIN)/python docs/build.py

clean:  ## remove the environment and everything generated
	rm -rf $(VENV) tunescope-out dist build .pytest_cache .ruff_cache .mypy_cache .hypothesis

# A stamp stands for an environment with these extras; it is older than its reasons when they change.
$(VENV)/.ready-demo: EXTRAS := demo
$(VENV)/.ready-dev: EXTRAS := dev
$(VENV)/.ready-bench: EXTRAS := dev,bench
$(VENV)/.ready-demo $(VENV)/.ready-dev $(VENV)/.ready-bench: $(SETUP) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: no '$(PYTHON)' here; install Python 3.11 or newer, or name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: '$(PYTHON)' is $$($(PYTHON) --version 2>&1), and tunescope needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
