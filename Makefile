# `make help` lists what there is. Everything is installed into .venv and nowhere else.
.DEFAULT_GOAL := help
.PHONY: help setup lint format test kernels bench soak sim demo lock clean

# Without .pyc files every Airflow task takes two seconds more to start.
unexport PYTHONDONTWRITEBYTECODE
export MLFLOW_DISABLE_TELEMETRY := true
BIN := .venv/bin
ARGS ?=

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

setup: ## Install the locked requirements into .venv (needs Python 3.11)
	@sh requirements/install.sh

lint: setup ## Style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --cache-dir .cache/import_linter

format: setup ## Put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint ## Lint, then every test; ARGS go to pytest
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

# numba's cache does not tell checked from unchecked code, hence the folder of its own.
# As plain Python, searches and intervals would take hours.
SMALL = $(wildcard $(patsubst %,tests/test_%.py,tables counts data parameters kernels scores search audit junction inference inference_questions inference_runs)) tests/drift/test_windows.py
LARGE = $(wildcard $(patsubst %,tests/test_%.py,structure strength intervals inference_peers classifier))
kernels: setup ## The numeric tests with numba's bounds checks, then as plain Python
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=.cache/numba-bounds $(BIN)/python -m pytest -q $(SMALL) $(LARGE) $(ARGS)
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -q $(SMALL) $(ARGS)

bench: setup ## Measure beside pgmpy and pyAgrum, write docs/benchmarks.md (half an hour, quiet machine); ARGS names parts
	$(BIN)/python -m benchmarks $(ARGS)

soak: setup ## The service under load for ten minutes while versions change, written to docs/soak.md; ARGS="--seconds 60"
	$(BIN)/python -m benchmarks.soak $(ARGS)

sim: setup ## What drift test, decisions and intervals do where the truth is known, written to docs/ (two hours)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.characteristics $(ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.decisions
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.canary --canaries 1000
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.slowness
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.coverage

demo: setup ## Train on real flights with a real Airflow and MLflow; ARGS=--once stops when done, --story goes on
	@$(BIN)/bnpipe demo $(ARGS)

# An extra's lock may only hold versions that were tested together: those of dev.txt.
LOCK = $(BIN)/uv pip compile --quiet --universal --generate-hashes $(ARGS)
lock: setup ## Resolve the requirements anew; ARGS=--upgrade takes newer versions
	$(LOCK) requirements/uv.in -o requirements/uv.txt
	$(LOCK) pyproject.toml --extra dev -o requirements/dev.txt
	$(LOCK) requirements/build.in -c requirements/dev.txt -o requirements/build.txt
	for extra in serve train airflow mlflow-server; do \
		$(LOCK) pyproject.toml --extra $$extra -c requirements/dev.txt -o requirements/$$extra.txt || exit; \
	done

clean: ## Remove .venv, caches and what the demo left (stop the demo first)
	rm -rf .venv .cache .demo build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
