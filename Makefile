# edgeml: `make demo` and `make test` set themselves up, in this folder and nowhere else.
#
#   make demo    from a trained model to a drift alarm (ARGS=--keep leaves it running)
#   make test    system packages where that is possible, then lint and all tests
#   make lint    ruff, import-linter, pyright
#   make clean   remove the environments and everything that was generated
#
# Environments, all from pinned constraints (edgeml/toolchain/constraints):
#   .venv               light: agent, collector, runtimes, tools of development
#   .toolchains/export  the converters, as `edgeml toolchain install export` makes it
#   .toolchains/onnx2tf the one between ONNX and LiteRT, which fits beside no other
# PYTHON=/path/to/python3.12 chooses the interpreter.

.DEFAULT_GOAL := help
SHELL := /bin/sh

BIN := .venv/bin
TOOLCHAIN := .toolchains/export/bin
PINS := edgeml/toolchain/constraints
PYTEST_ARGS ?=
# A process more than the two cores of a small machine: tests wait, for processes and for the disk.
PYTEST := -m pytest -p hypothesispytest -p xdist
SIDE_BY_SIDE := --dist loadfile --no-loadscope-reorder

# Most of what a type check takes is then what tests leave while they wait.
GIVING_WAY := nice -n 5

export EDGEML_TOOLCHAINS := $(CURDIR)/.toolchains
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Else each of some thousand processes compiles what it imports of edgeml, and each worker the tests.
unexport PYTHONDONTWRITEBYTECODE
# Compiles nothing on installation (of the options that begin with "no", pip takes a 0 for yes): most
# of 44,000 files are never imported, and those that are are compiled then.
export PIP_NO_COMPILE := 0
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# Libraries of the toolchain bring plugins for pytest, whose import takes two seconds of each worker.
export PYTEST_DISABLE_PLUGIN_AUTOLOAD := 1

# Tests that go from .venv into the toolchain and back.
HOP_TESTS := tests/cli/test_export_hop.py

.PHONY: help demo test test-light test-hop test-exporter test-targets lint lint-light lint-heavy clean packages
.PHONY: environments
.PHONY: toolchain onnx2tf test-tools

help:
	@sed -n 's/^#   make/  make/p' Makefile

demo: environments
	$(BIN)/edgeml demo $(ARGS)

# Two rounds, of what fills the processor side by side. Those tests of the second that go through
# onnx2tf would wait for its installation, so it belongs to the first; and so does all of lint, since
# the tests of the first wait more, and leave it the time.
test: .venv/.core
	@$(MAKE) --no-print-directory -j4 test-light lint-light lint-heavy onnx2tf
	@$(MAKE) --no-print-directory -j3 test-exporter test-targets test-hop

test-light: .venv/.light packages
	$(BIN)/python $(PYTEST) -n 3 $(SIDE_BY_SIDE) $(HOP_TESTS:%=--ignore=%) $(PYTEST_ARGS)

test-hop: .venv/.light toolchain
	$(BIN)/python $(PYTEST) $(PYTEST_ARGS) $(HOP_TESTS)

# What needs the converters. Exports run in processes of their own. Conversions run in the tests'
# process: a single one imports all frameworks once, and makes once what several files look at. It
# takes longer than each of the two workers that export, so they give way to it.
test-exporter: test-tools
	$(GIVING_WAY) $(TOOLCHAIN)/python $(PYTEST) -n 2 $(SIDE_BY_SIDE) $(PYTEST_ARGS) tests/exporter

test-targets: test-tools
	$(TOOLCHAIN)/python $(PYTEST) $(PYTEST_ARGS) tests/targets

lint: lint-light lint-heavy

lint-light: .venv/.light
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(GIVING_WAY) $(BIN)/pyright

lint-heavy: .venv/.light test-tools
	$(GIVING_WAY) $(BIN)/pyright --project pyrightconfig.toolchain.json

# The two installations wait for the network and the disk in turn: side by side they take as long as
# the longer one.
environments: .venv/.core
	@$(MAKE) --no-print-directory -j2 .venv/.light toolchain

packages:
	@.ci/packages.sh mosquitto chromium chromium-driver

toolchain: .venv/.core
	@$(BIN)/edgeml toolchain install export

onnx2tf: .venv/.core
	@$(BIN)/edgeml toolchain install onnx2tf

# What runs the tests of a toolchain inside it is no part of it.
test-tools: toolchain .venv/.light
	@$(BIN)/python .ci/test_tools.py $(TOOLCHAIN)/python $(PINS)/export.txt

# Enough of edgeml to make a toolchain with.
.venv/.core: pyproject.toml $(PINS)/light.txt .ci/venv.sh
	@.ci/venv.sh .venv
	$(BIN)/python -m pip install --quiet --constraint $(PINS)/light.txt --editable .
	@touch $@

# The file pins everything that stands in this environment, so it is the list as well.
.venv/.light: .venv/.core $(PINS)/light.txt
	$(BIN)/python -m pip install --quiet --requirement $(PINS)/light.txt
	@touch $@

clean:
	rm -rf .venv .toolchains demo-out build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	rm -rf .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
