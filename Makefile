# `make demo` and `make test` set up everything they need; both can be repeated.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo cluster-demo test clean

help:
	@echo "make demo          train and evaluate the maze from nothing, and write a report on it"
	@echo "make cluster-demo  the same as a job on a cluster of containers on this machine; needs docker"
	@echo "make test          lint, type-check and test"
	@echo "make venv          only create the virtual environment $(VENV) and install into it"
	@echo "make clean         remove $(VENV) and caches; runs and data sets stay"

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

COMPOSE := docker compose --file docker/compose.yaml

cluster-demo: export RAY_AUTH_TOKEN := $(or $(RAY_AUTH_TOKEN),$(shell od -An -N32 -tx1 /dev/urandom | tr -d ' \n'))
cluster-demo:
	@echo "== building the image, starting a head and two workers"
	$(COMPOSE) up --build --detach --wait
	@echo "== submitting the maze; the cluster's dashboard is at http://127.0.0.1:8265"
	$(COMPOSE) exec head ray job submit --address http://127.0.0.1:8265 -- \
		skild-ray pipeline /home/ray/experiments/maze.yaml --set runs=/shared/runs --set rollout.num_env_runners=2
	$(COMPOSE) cp head:/shared/runs/maze/report.html maze_report.html
	$(COMPOSE) down
	@echo "== maze_report.html is its report; its runs stay in the volume skild-ray_shared"

test: venv
	@echo "== lint"
	$(BIN)/ruff check .
	@echo "== types"
	$(BIN)/mypy
	@echo "== tests"
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "== runs/ and the data sets that Minari keeps were left alone"
