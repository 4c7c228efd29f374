# AIOS: set up, run, test. Everything lives in .venv, the model in AIOS_HOME; the second time each target takes seconds.
#
#   make run [DIR=folder]   set up, then let agents digest the text files of a folder (default: docs)
#   make test [ARGS=...]    set up, then run the tests; ARGS go to pytest
#   make check [ARGS=...]   set up, then format, lint, types, floors and docs; ARGS name single steps
#   make setup | dev        only set up: what running needs | what testing needs as well
#   make docs               write the generated reference pages again
#   make llama-tools        build the programs of llama.cpp that `aios bench` compares with (about ten minutes)
#   make clean              remove .venv and everything else that was made here; models stay
#
# PYTHON=/path/to/python3.12 picks the interpreter that .venv is made with.

SHELL := /bin/sh
DIR ?= docs
ARGS ?=
export PYTHON

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test check setup dev model docs llama-tools clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

run: setup model
	@.venv/bin/aios run --top examples/digest --dir "$(DIR)" --compare

test: dev model
	@scripts/test $(ARGS)

check: dev
	@scripts/check $(ARGS)

setup:
	@python="$$(scripts/find-python)" && "$$python" scripts/setup

dev:
	@python="$$(scripts/find-python)" && "$$python" scripts/setup dev

model: setup
	@.venv/bin/aios pull > /dev/null

docs: dev
	@scripts/gen-docs

llama-tools:
	@scripts/build-llama-tools

clean:
	rm -rf .venv build dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests examples scripts -name __pycache__ -type d -prune -exec rm -rf {} +
