# `make demo` and `make test` set up everything they need; both can be repeated.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo test clean

help:
	@echo "make demo   train and evaluate the maze from nothing, and write a report on it"
	@echo "make test   lint, type-check and test"
	@echo "make venv   only create the virtual environment $(VENV) and install into it"
	@echo "make clean  remove $(VENV) and caches; runs and data sets stay"

venv: $(INSTALLED)
	@echo "== $(VENV) is ready"

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "skild_ray needs Python 3.11 or later; name one: make PYTHON=python3.11" >&2; exit 1; }
	@echo "== creating $(VENV) with $$($(PYTHON) --version)"
	$(PYTHON) -m venv $(VENV)
	@echo "== installing skild_ray and its dependencies into $(VENV): takes some minutes"
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch $@

demo: venv
	@echo "== maze: data, four stages of training, evaluation, report; what is finished is reused"
	$(BIN)/skild-ray pipeline experiments/maze.yaml

test: venv
	@echo "== lint"
	$(BIN)/ruff check .
	@echo "== types"
	$(BIN)/mypy
	@echo "== tests"
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "== runs/ and the data sets that Minari keeps were left alone"
