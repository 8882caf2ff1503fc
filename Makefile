# make demo: watch an election.  make test: everything that is tested.  make help: the rest.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test minimum repeat check bench simulate chaos clean tools
help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: .venv/run  ## three workers, one leader: kill it and watch another take over
	@$(BIN)/politics demo

test: .venv/dev tools  ## the whole test suite, against real memcached and real processes, in four processes beside each other
	@$(BIN)/python -m pytest --numprocesses 4 --dist loadgroup $(ARGS)

minimum: .venv/minimum tools  ## a part of the tests with the lowest versions of our dependencies that pyproject.toml allows
	@.venv/minimum/bin/python -m pytest --numprocesses 4 --dist loadgroup tests/unit tests/contract tests/integration/test_cli.py \
		tests/integration/test_terminal.py tests/integration/test_registry_cli.py tests/integration/test_metrics.py

repeat: .venv/dev tools  ## the suite many times, and a count of what failed: RUNS=10 BUSY=1
	@$(BIN)/python -m tests.repeat --runs $(or $(RUNS),10) $(if $(BUSY),--busy)

check: .venv/dev  ## ruff and mypy strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: .venv/bench tools  ## every figure as a ratio against a peer or a limit of the same run
	@$(BIN)/python -m tests.bench

simulate: .venv/dev  ## attack the protocol in a simulated world: STEPS=1000000 SEED=0
	@$(BIN)/python -m tests.simulation $(or $(STEPS),1000000) $(or $(SEED),0)
	@$(BIN)/python -m tests.quorum $(or $(STEPS),1000000) $(or $(STEPS),1000000) $(or $(SEED),0)

chaos: .venv/dev tools  ## random faults on several hosts, and a report: MINUTES=5 SEED=7 STORE=memcached (sqlite, redis, postgresql, etcd, zookeeper, quorum)
	@$(BIN)/python -m tests.hosts.chaos --minutes $(or $(MINUTES),5) --store $(or $(STORE),memcached) $(if $(SEED),--seed $(SEED))

clean:  ## remove the virtual environment and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "politics needs Python 3.11 or later: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "cannot make a virtual environment: install Python's venv module (Debian: apt-get install python3-venv)"; rm -rf .venv; exit 1; }

.venv/run: .venv/bin/python pyproject.toml
	@echo "installing politics into .venv ..."
	@$(PIP) --editable .
	@touch $@

.venv/dev: .venv/run
	@echo "installing the test tools into .venv ..."
	@$(PIP) --editable '.[dev]'
	@touch $@

.venv/minimum: .venv/dev tests/minimum.py
	@echo "installing the lowest versions into .venv/minimum ..."
	@$(BIN)/python -m tests.minimum > .venv/constraints.txt
	@$(BIN)/python -m venv --clear .venv/minimum
	@.venv/minimum/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv/constraints.txt --editable '.[dev]'
	@touch $@

.venv/bench: .venv/dev
	@echo "installing the peers to measure against into .venv ..."
	@$(PIP) --editable '.[bench]'
	@touch $@

tools:
	@sh tests/install_tools.sh
