# Every target makes the virtual environment by itself when it is missing or out of date.
#   make PYTHON=python3.12 test     makes it with another interpreter
#   make PYTEST_ARGS=-x test        replaces the default arguments of pytest
PYTHON ?= python3
PYTEST_ARGS ?= -n 3 --dist loadfile --no-loadscope-reorder
QUICKSTART_DIR ?= runs/quickstart
MINUTES ?= 2
# What depends on the versions of other libraries.
VERSION_TESTS ?= tests/models tests/hub tests/data tests/test_examples.py tests/test_private_names.py

BIN := .venv/bin
STAMP := .venv/installed

# A newer pip than Python brings, and modules compiled when they are first imported: a fifth of the time.
unexport PYTHONDONTWRITEBYTECODE
NEW_VENV = $(PYTHON) -m venv $(1) && $(1)/bin/python -m pip install --quiet --disable-pip-version-check "pip>=25"
INSTALL = -m pip install --quiet --disable-pip-version-check --no-compile

.DEFAULT_GOAL := help
.PHONY: help quickstart test soak test-ecosystem test-oldest test-newest docs lint

help:  ## show this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1 | /' | column -t -s '|'

quickstart: $(STAMP)  ## see a model speak, train two of your own, compare
	@echo "quickstart: pretraining into $(QUICKSTART_DIR)"
	@$(BIN)/smt-hf quickstart --output-dir $(QUICKSTART_DIR)

test: lint  ## lint, then run the tests
	@echo "test: pytest"
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

soak: $(STAMP)  ## kill training, and a server under load, for two minutes each (MINUTES=30 for more)
	@echo "soak: pytest"
	@$(BIN)/python -m pytest tests/soak -m slow -s --minutes $(MINUTES)

test-ecosystem: .venv/installed-ecosystem  ## the tests with trl, peft, lm-eval, openai, torchao, onnxruntime
	@echo "test-ecosystem: pytest"
	@$(BIN)/python -m pytest -m ecosystem $(PYTEST_ARGS)

test-oldest: .venv-oldest/installed  ## the tests of models, Hub and data with the oldest versions that are allowed
	@echo "test-oldest: pytest"
	@.venv-oldest/bin/python -m pytest $(VERSION_TESTS) $(PYTEST_ARGS)

test-newest: .venv-newest/installed  ## the same with the newest versions that are allowed
	@echo "test-newest: pytest"
	@.venv-newest/bin/python -m pytest $(VERSION_TESTS) $(PYTEST_ARGS)

docs: .venv/installed-docs  ## build the pages and the reference into site/, warnings as errors
	@echo "docs: mkdocs"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lint: $(STAMP)  ## check formatting, lint rules and types
	@echo "lint: ruff format, ruff check, mypy"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

$(STAMP): pyproject.toml constraints.txt
	@echo "venv: installing the tested versions into .venv (some minutes the first time)"
	@test -x $(BIN)/pip || $(call NEW_VENV,.venv)
	@$(BIN)/python $(INSTALL) -c constraints.txt -e '.[dev,experiments,report,serve,trackers]'
	@echo | $(BIN)/smt-hf generate --max-new-tokens 1 > /dev/null 2>&1 || true  # compiles what it imports
	@touch $@

.venv/installed-ecosystem: $(STAMP)
	@echo "venv: adding the extra 'ecosystem'"
	@$(BIN)/python $(INSTALL) -c constraints.txt -e '.[ecosystem]'
	@touch $@

.venv/installed-docs: $(STAMP)
	@echo "venv: adding the extra 'docs'"
	@$(BIN)/python $(INSTALL) -c constraints.txt -e '.[docs]'
	@touch $@

.venv-oldest/installed: pyproject.toml constraints-oldest.txt
	@echo "venv: installing the oldest versions that pyproject.toml allows into .venv-oldest"
	@test -x .venv-oldest/bin/pip || $(call NEW_VENV,.venv-oldest)
	@.venv-oldest/bin/python $(INSTALL) -c constraints-oldest.txt -e '.[dev,experiments]'
	@touch $@

.venv-newest/installed: pyproject.toml
	@echo "venv: installing the newest versions that pyproject.toml allows into .venv-newest"
	@test -x .venv-newest/bin/pip || $(call NEW_VENV,.venv-newest)
	@.venv-newest/bin/python $(INSTALL) --upgrade -e '.[dev,experiments]'
	@touch $@
