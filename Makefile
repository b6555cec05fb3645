# On a fresh Debian or Ubuntu, `make run` and `make test` are all there is to type: what is missing is
# installed first, once. The stamps in .venv/ remember that; see setup.sh for the how.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# ip, nft, tc and sysctl live where an ordinary user's PATH may not lead.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
# It would say that there is a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

python := .venv/bin/python
jobs ?= $(shell nproc)
side_by_side := $(python) -m pytest -n $(jobs) --dist loadgroup

.PHONY: help setup run test quick check fmt cov kernel mutants bench pins clean purge

help: ## print this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.ready ## install what is missing: system packages by apt, Python packages into .venv

run: .venv/.ready ## set up, then run every sim in sims/
	.venv/bin/patchbay run sims/

# The pure tests by themselves, because they alone have to cover the pure half; what measures after the rest, so that
# nothing runs beside it. A failure of one does not hide the others'.
test: check kernel .venv/.packages-daemons ## set up, then check, then run all tests
	@status=0; set -x; \
	$(side_by_side) tests/pure --cov || status=$$?; \
	$(side_by_side) --ignore tests/pure --ignore tests/test_structure.py -m 'not measures' || status=$$?; \
	$(python) -m pytest -m measures || status=$$?; \
	exit $$status

quick: .venv/.ready ## set up, then run the tests that need no namespaces, in seconds
	$(side_by_side) -m 'not kernel'

check: .venv/.ready ## set up, then lint, format, types, imports and structure
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy
	$(python) -m pyright
	.venv/bin/lint-imports
	$(python) -m pytest -q tests/test_structure.py

fmt: .venv/.ready ## set up, then format the code, and mend what the linter can
	$(python) -m ruff check --fix-only --exit-zero .
	$(python) -m ruff format .

cov: .venv/.ready ## set up, then print the coverage of the pure half by the pure tests alone
	$(side_by_side) tests/pure --cov --cov-report term-missing

kernel: .venv/.ready ## set up, then build a kernel with netem for the tests, if this machine's has none
	./setup.sh kernel

mutants: .venv/.ready kernel ## set up, then see that wrong emulators are caught, ten times of ten: a quarter of an hour
	$(python) -m tests.mutants --times 10

bench: .venv/.ready .venv/.packages-bench kernel ## set up, then measure how fast labs are built, and links
	$(python) -m tests.bench.run

pins: .venv/.ready ## renew requirements.txt with what pip resolves today
	./setup.sh pins > .venv/pins
	mv .venv/pins requirements.txt

clean: ## remove what make made; runs in .patchbay-work/ stay, and built kernels
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage build dist bench-results
	find . -name __pycache__ -prune -exec rm -rf {} +

purge: clean ## clean, and remove the kernels built for any checkout: ~/.cache/patchbay/kernels
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/patchbay/kernels"

.venv/.ready: pyproject.toml requirements.txt .venv/.packages-base
	./setup.sh venv
	@touch $@

.venv/.packages-%: packages.txt setup.sh
	./setup.sh packages $*
	@mkdir -p .venv && touch $@
