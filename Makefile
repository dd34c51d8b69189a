# Every target sets up .venv first (scripts/bootstrap does nothing when it is current).
BIN := .venv/bin
.DEFAULT_GOAL := help

.PHONY: help setup test test-demo test-adapters soak lint types demo bench bench-quick lock clean

help: ## Show this help.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv with every pinned dependency.
	@scripts/bootstrap

# Whole families of processes have the machine to themselves; everything else shares its cores.
test: setup lint types ## Run the checks and all tests.
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --ignore tests/end_to_end tests $(PYTEST)
	@$(BIN)/python -m pytest tests/end_to_end $(PYTEST)

test-demo: setup ## Run the flights example's tests on 14 days of data.
	@T2_E2E_DAYS=14 $(BIN)/python -m pytest tests/end_to_end/test_flights.py $(PYTEST)

test-adapters: setup ## Run dbt's published tests of adapters, and T2's own on an emulator of BigQuery.
	@scripts/bigquery-emulator
	@$(BIN)/python -m pytest tests/dbt_package/adapter_suite tests/dbt_package/test_bqemulator.py -m 'adapters or not adapters' $(PYTEST)

soak: setup ## Repeat races and crashes for as long as it takes to trust them.
	@$(BIN)/python -m pytest -m soak $(PYTEST)

lint: setup
	@echo "t2: ruff" >&2
	@$(BIN)/ruff check src tests benchmarks examples scripts
	@$(BIN)/ruff format --check src tests benchmarks examples

types: setup
	@echo "t2: mypy" >&2
	@$(BIN)/mypy

demo: setup ## Run the flights example with Dagster's UI; ONCE=1 lands 14 days without a browser and exits.
	@$(BIN)/python examples/nycflights/demo.py $(if $(ONCE),--once)

bench: setup ## Measure T2 beside stock Dagster + dbt (more than an hour on 2 idle cores).
	@$(BIN)/python -m benchmarks

bench-quick: setup ## The same figures on smaller projects.
	@$(BIN)/python -m benchmarks --quick

lock: setup ## Write requirements*.txt anew from requirements*.in.
	@uv=$$(command -v uv || echo $(BIN)/uv); \
	$$uv pip compile -q --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-header requirements.in -o requirements.txt && \
	$$uv pip compile -q --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-header requirements-dev.in -o requirements-dev.txt && \
	$$uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements-bigquery.in -o requirements-bigquery.txt && \
	$$uv pip compile -q --no-deps --generate-hashes --no-emit-index-url --no-header requirements-example.in -o requirements-example.txt

clean: ## Remove .venv and everything that was built.
	rm -rf .venv .venv-bigquery build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
