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
CHAOS_BACKEND ?= redis
MUTANTS_SECONDS ?= 3000
MUTANTS_SEED ?=
PYTHONS ?= 3.12 3.13
LOWEST := .venv-lowest
PACKAGES := $(foreach p,$(wildcard plugins/*/),-e '$(p)[embedded]')
OURS := streamq $(notdir $(patsubst %/,%,$(wildcard plugins/*/)))
# Some tests of every layer, for other versions of Python and of packages.
SLICE := $(addprefix tests/,core/test_drivers.py core/test_settings.py core/test_names.py \
	core/test_writer.py core/test_reader.py core/test_data_converter.py gateway/test_app.py \
	gateway/test_events.py cli/test_app.py cli/test_strange_names.py temporal/test_histories.py \
	temporal/test_subscribe.py temporal/test_tracing.py temporal/producer/test_streaming.py \
	temporal/workflow/test_stream_activity.py temporal/generic/test_deliveries.py \
	temporal/workflow_streams/test_publishing_runs.py applications/test_forms.py)
BACKENDS := tests/drivers/test_sqlite_conformance.py $(wildcard plugins/*/tests/*conformance.py) \
	-k 'not TestStandard and not TestElasticMq and not TestSeaweedFs and not TestApacheKafka and \
	(name or tenant or foreign or resumed or takeover or chunk or trimmed or expires)'
# The tests' own tools need not be old; others have to fit the packages that streamq depends on.
TOOLS := pytest-timeout|pytest-xdist|hypothesis|httpx-sse|cramjam|cryptography|trustme|grpcio|[a-z-]+-bin

.PHONY: help demo test test-full test-lowest test-python lint format bench chaos mutants setup lock clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: $(READY) ## Stream a text through a real Temporal server and watch it arrive (ARGS="--help").
	@$(BIN)/streamq demo $(ARGS)

test: $(READY) ## Run the tests; they start every server they need (ARGS="-k name").
	@$(BIN)/pytest $(ARGS)

test-full: $(READY) ## Run also the tests that take long (ARGS="-k name").
	@$(BIN)/pytest -m "" $(ARGS)

test-lowest: $(LOWEST)/.ready ## Run some tests of every layer with the oldest versions that are allowed.
	@$(LOWEST)/bin/pytest -W ignore::DeprecationWarning $(SLICE) $(ARGS)
	@$(LOWEST)/bin/pytest -W ignore::DeprecationWarning $(BACKENDS) $(ARGS)

test-python: $(READY) ## Run the same with Python 3.12 and 3.13, as far as they are found (PYTHONS="3.13").
	@for v in $(PYTHONS); do \
		found=$$(for p in python$$v $(HOME)/.pyenv/versions/$$v.*/bin/python; do \
			$$p -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$$v')" 2>/dev/null && \
			echo $$p && break; done); \
		if [ -z "$$found" ]; then echo "Python $$v: not found"; continue; fi; \
		echo "Python $$v: $$found"; \
		$(MAKE) --no-print-directory .venv-$$v/.ready FOUND=$$found && \
		.venv-$$v/bin/pytest $(SLICE) $(ARGS) && \
		.venv-$$v/bin/pytest $(BACKENDS) $(ARGS) || exit 1; \
	done

lint: $(READY) ## Check style and types.
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: $(READY) ## Put the sources into the house style.
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(READY) ## Measure latency and throughput beside a bare client (BENCH=a2a, access, cancel, cost, gateway_load, kafka, many_streams, migrating, postgres, reading_over_http, revocation, s3sns, sqs, streams).
	@$(BIN)/python -m benchmarks.$(BENCH) $(ARGS)

chaos: $(READY) ## Break everything for CHAOS_SECONDS=120, by CHAOS_SEED=7, and count what is lost (CHAOS_BACKEND=redis, sqlite, postgres, kafka, s3sns, sqs, workflow_streams).
	@$(BIN)/python -m tests.chaos --backend $(CHAOS_BACKEND) --seconds $(CHAOS_SECONDS) --seed $(CHAOS_SEED) $(ARGS)

mutants: $(READY) ## Change drivers in small ways for MUTANTS_SECONDS=3000, by MUTANTS_SEED, and count what the kit misses (ARGS="--all").
	@$(BIN)/python -m tests.mutants $(if $(ARGS),,--seconds $(MUTANTS_SECONDS)) \
		$(if $(MUTANTS_SEED),--seed $(MUTANTS_SEED)) $(ARGS)

setup: $(READY) ## Only set up .venv.

$(READY): pyproject.toml $(wildcard plugins/*/pyproject.toml) constraints.txt
	@test -n "$(PYTHON)" || { echo "streamq needs Python 3.11 or newer; none was found on PATH" >&2; exit 2; }
	@echo "setting up $(VENV) ..." >&2
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt \
		-e '.[demo]' $(PACKAGES) --group dev
	@touch $@

$(LOWEST)/.ready: $(READY) constraints-lowest.txt
	@echo "setting up $(LOWEST) ..." >&2
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(LOWEST)/bin/python \
		-c constraints-lowest.txt -e '.[demo,otel,testing]' $(PACKAGES) --group test
	@touch $@

.venv-3.%/.ready: $(READY)
	@echo "setting up $(@D) ..." >&2
	@$(BIN)/uv venv --quiet --clear --python $(FOUND) $(@D)
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(@D)/bin/python \
		-c constraints.txt -e '.[demo]' $(PACKAGES) --group test
	@touch $@

LOCK = $(BIN)/uv pip compile --quiet --universal --upgrade --no-annotate --no-emit-index-url --no-header \
	--python-version 3.11 $(addprefix --no-emit-package ,$(OURS)) \
	pyproject.toml plugins/*/pyproject.toml
# The SDK of A2A needs newer packages than everything else, which is tried with the oldest without it.
OLDEST = $(addprefix --extra ,$(filter-out a2a,$(shell sed -n \
	'/^.project.optional-dependencies/,/^$$/s/^\([a-z0-9-]*\) = .*/\1/p' pyproject.toml plugins/*/pyproject.toml | sort -u)))

lock: $(READY) ## Renew constraints.txt with the newest versions that fit, constraints-lowest.txt with the oldest.
	@$(LOCK) --all-extras --group dev -o constraints.txt
	@$(BIN)/uv --version | sed -E 's/^uv ([0-9.]+).*/uv==\1/' >> constraints.txt
	@grep -E '^($(TOOLS))==' constraints.txt | grep -v -E '^(temporal|valkey)' > constraints-tools.tmp
	@$(LOCK) $(OLDEST) --group test --resolution lowest-direct -c constraints-tools.tmp -o constraints-lowest.txt
	@rm constraints-tools.tmp

clean: ## Remove everything that the other commands made.
	rm -rf $(VENV) $(LOWEST) .venv-3.* .mypy_cache .pytest_cache .ruff_cache .hypothesis .streamq
