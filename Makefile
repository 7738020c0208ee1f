PYTHON ?= python3
BIN := .venv/bin
RUN_NOTEBOOK = PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest --nbmake --nbmake-timeout 1800 -o faulthandler_timeout=3600

.PHONY: setup lock audit docker docs demo test test-faults lint type notebook notebook-outputs bench

setup: .venv/.installed

.venv/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

lock:
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet --output-file requirements.lock

audit: setup
	$(BIN)/python .ci/audit

docker:
	@docker info > /dev/null 2>&1 || { echo "make docker needs a running docker, and finds none"; exit 1; }
	docker build --build-arg TORCH_INDEX=$(TORCH_INDEX) --tag transfergen .

demo: setup
	$(BIN)/python train.py experiment=quickstart

test: setup
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test-faults: setup
	$(BIN)/python -m pytest -m faults

notebook: setup
	$(RUN_NOTEBOOK) docs/quickstart.ipynb

notebook-outputs: setup
	$(RUN_NOTEBOOK) --overwrite docs/quickstart.ipynb
	$(BIN)/python docs/clean_notebook.py docs/quickstart.ipynb

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup
	$(BIN)/mypy

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo site/index.html

bench: setup
	$(BIN)/python benchmarks/step_time.py run
	$(BIN)/python benchmarks/train_command.py run start
