PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test lint type bench

setup: .venv/.installed

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/python train.py experiment=quickstart

test: setup
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/step_time.py
	$(BIN)/python benchmarks/projected_step.py
	$(BIN)/python benchmarks/startup.py
