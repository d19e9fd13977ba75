# The tasks of this repository, for people and CI. The work itself is in tools/*.py.
PYTHON ?= python3
BIN := .venv/bin
# The engine's tests with a real ffmpeg, less the long ones about the daemon's absence and of spoilt files.
SYSTEM_FFMPEG_TESTS := -m e2e tests/engine $(patsubst %,--ignore-glob='*test_%*',blips agent disk_space corrupt)
# Arguments for pytest; CI asks for the slowest tests with it.
PYTEST_FLAGS ?=

.PHONY: help setup demo test ffmpegs test-ffmpeg test-system-ffmpeg unit torture fuzz verdicts realmedia bench check lint types wheel-test operator-tools fmt lock clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' Makefile

setup: ## make .venv with everything in it (does nothing when it is up to date)
	@$(PYTHON) tools/setup.py

demo: setup ## run the main job: daemon, two engines, real clips to four codecs
	@$(BIN)/python tools/demo.py

test: setup ## run all tests: in parallel, then those that measure, alone
	@$(BIN)/python tools/run_tests.py $(PYTEST_FLAGS)

ffmpegs: setup ## put ffmpeg 7.1, 8.1 and 9.0 into .tools, for test-ffmpeg and realmedia
	@$(BIN)/python -m tools.ffmpegs

test-ffmpeg: setup ## run what the engine does with ffmpeg again, with FFMPEG=7.1, 8.1, 9.0, system (5.1) or PATH
	DISTCONV_TEST_FFMPEG=$(or $(wildcard $(CURDIR)/.tools/ffmpeg-$(FFMPEG)/ffmpeg),$(FFMPEG),system) $(BIN)/pytest --numprocesses=2 --dist=loadfile $(PYTEST_FLAGS) $(SYSTEM_FFMPEG_TESTS)

test-system-ffmpeg: ## the same with the system's, Debian's 5.1 in CI
	@$(MAKE) --no-print-directory test-ffmpeg FFMPEG=system

unit: setup ## run the fast tests only: no ffmpeg, no daemon process (under a minute)
	@$(BIN)/python tools/run_tests.py -m "not e2e and not slow"

torture: setup ## kill the daemon 30 times under load, with both disk stores, and audit exactly
	DISTCONV_TORTURE_KILLS=30 $(BIN)/pytest tests/torture -s

verdicts: setup ## run every bad and odd source through the whole engine, as docs/verdicts.md says
	DISTCONV_FULL_MATRIX=1 $(BIN)/pytest -q --numprocesses=auto --dist=worksteal tests/engine/pipeline/test_corrupt_sources.py tests/engine/pipeline/test_odd_sources.py

realmedia: setup ## run real files of DIR=FOLDER and print the figures; FFMPEG=system, REPORT=FILE to go on from
	$(BIN)/python tools/realmedia.py $(or $(DIR),../shared/realmedia) $(if $(FFMPEG),--ffmpeg $(or $(wildcard $(CURDIR)/.tools/ffmpeg-$(FFMPEG)/ffmpeg),$(FFMPEG))) $(if $(REPORT),--report $(REPORT))

fuzz: setup ## search for a byte stream that breaks the HTTP edge, for MINUTES=5
	$(BIN)/python tools/fuzz.py --minutes $(or $(MINUTES),5)

bench: setup ## measure daemon and engine against their baselines (20 minutes), or the daemon against BASE=REV's
	$(BIN)/python -m bench $(if $(BASE),--base $(BASE))

check: lint types test verdicts wheel-test ## everything that CI runs

lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy and pyright, both strict
	$(BIN)/mypy
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

wheel-test: setup ## build the wheel and test it in a clean environment
	$(BIN)/python tools/wheel_test.py

operator-tools: ## fetch nginx, promtool, hadolint, schemas: tests of contrib/ skip without them
	@$(PYTHON) tools/operator_tools.py

fmt: setup ## sort imports, apply ruff's fixes, format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lock: ## rewrite constraints.txt from pyproject.toml (needs the network)
	@$(PYTHON) tools/lock.py

clean: ## remove everything that was generated here
	rm -rf .venv .venv.lock .wheelhouse .wheelhouse.new .wheelhouse.log build dist
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
