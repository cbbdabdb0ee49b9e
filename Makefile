# Two commands do everything: `make demo` shows streamq at work, `make test` proves it.
# Both set up what they need in .venv, from package registries only; a second run is quick.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=
BENCH ?= latency
CHAOS_SECONDS ?= 120
CHAOS_SEED ?= 7

.PHONY: help demo test test-full lint format bench chaos setup lock clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: $(READY) ## Stream a text through a real Temporal server and watch it arrive (ARGS="--help").
	@$(BIN)/streamq demo $(ARGS)

test: $(READY) ## Run the tests; they start every server they need (ARGS="-k name").
	@$(BIN)/pytest $(ARGS)

test-full: $(READY) ## Run also the tests that take long (ARGS="-k name").
	@$(BIN)/pytest -m "" $(ARGS)

lint: $(READY) ## Check style and types.
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: $(READY) ## Put the sources into the house style.
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(READY) ## Measure latency and throughput beside a bare client (BENCH=cancel, cost, kafka, s3sns, sqs).
	@$(BIN)/python -m benchmarks.$(BENCH) $(ARGS)

chaos: $(READY) ## Break everything for CHAOS_SECONDS=120, by CHAOS_SEED=7, and count what is lost.
	@$(BIN)/python -m tests.chaos --seconds $(CHAOS_SECONDS) --seed $(CHAOS_SEED) $(ARGS)

setup: $(READY) ## Only set up .venv.

$(READY): pyproject.toml $(wildcard plugins/*/pyproject.toml) constraints.txt
	@test -n "$(PYTHON)" || { echo "streamq needs Python 3.11 or newer; none was found on PATH" >&2; exit 2; }
	@echo "setting up $(VENV) ..." >&2
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt \
		-e '.[demo]' $(foreach p,$(wildcard plugins/*/),-e '$(p)[embedded]') --group dev
	@touch $@

lock: $(READY) ## Renew constraints.txt with the newest versions that fit.
	@$(BIN)/uv pip compile --quiet --universal --upgrade --no-annotate --no-emit-index-url --no-header \
		--python-version 3.11 --all-extras --group dev --no-emit-package streamq \
		--no-emit-package streamq-aws --no-emit-package streamq-kafka \
		--no-emit-package streamq-redis --no-emit-package streamq-s3sns \
		--no-emit-package streamq-sqs --no-emit-package streamq-workflow-streams \
		pyproject.toml plugins/*/pyproject.toml -o constraints.txt
	@$(BIN)/uv --version | sed -E 's/^uv ([0-9.]+).*/uv==\1/' >> constraints.txt

clean: ## Remove everything that the other commands made.
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .streamq
