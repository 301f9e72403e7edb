# make quickstart: sets everything up, runs the relay on this machine, prints the result
# make test: sets everything up, runs all tests
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3 python,$(if $(shell command -v $(name) 2>/dev/null),$(name))))
VENV := .venv
READY := $(VENV)/.installed
ARGS ?=

.PHONY: setup quickstart test lint style bench clean

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
		{ echo "make: Baton needs Python 3.11 or 3.12, '$(PYTHON)' is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "make: $(PYTHON) has no venv; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	# torch comes first and alone, so that nothing that asks for "torch" pulls a second one. Python compiles what it
	# imports, when it does; pip would compile all, for a minute.
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile "$$(grep -o 'torch==[0-9.]*' pyproject.toml | head -n 1)"
	DS_BUILD_OPS=0 $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	@touch $(READY)

quickstart: $(READY)
	$(VENV)/bin/baton run configs/quickstart.yaml $(ARGS)

test: $(READY) style
	# Three at a time, on two cores too: half of the tests wait for clusters, jobs and processes most of their time.
	# Threads that wait do not spin. mypy is one of the tests.
	OMP_WAIT_POLICY=passive $(VENV)/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY) style
	$(VENV)/bin/mypy

style: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

bench: $(READY)
	$(VENV)/bin/python tests/benchmarks/quickstart.py $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
