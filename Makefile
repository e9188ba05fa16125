# make serve: a broker at 127.0.0.1:9092 with data in ./trioq-data
# make test:  everything the tests need, then the whole suite

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
            $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV   ?= .venv
BIN    := $(VENV)/bin
LISTEN ?= 127.0.0.1:9092
DATA   ?= ./trioq-data
# One process more than CI has cores: tests of clusters, which one of them runs, mostly wait.
PYTEST_ARGS ?= -n 3
MINUTES ?= 30

NATIVE_SOURCES := $(wildcard trioq/_native/*.pyx trioq/_native/*.pxd trioq/_native/*_impl.c trioq/_native/*.h trioq/_native/posix_build.py)

.NOTPARALLEL:
.PHONY: serve test lint types floors unit fuzz sanitize kcat zookeeper build wheel sdist docs site clean soak

serve: $(VENV)/build.stamp
	@exec $(BIN)/trioq serve --listen $(LISTEN) --data-dir $(DATA)

test: kcat zookeeper lint types floors unit

$(VENV)/pip.stamp:
	@test -n "$(PYTHON)" || { echo "trioq needs Python 3.11 or newer, and found none: install it, or say where it is: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@touch $@

# What developing needs besides the package.
$(VENV)/dev.stamp: $(VENV)/pip.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

# The package in this environment, run from this directory; the native layer is built in place.
# Once the development tools are there, a change of native code compiles just what it touches.
$(VENV)/build.stamp: $(VENV)/pip.stamp pyproject.toml setup.py $(NATIVE_SOURCES)
	@if test -e $(VENV)/dev.stamp && test -z "$(filter %.stamp %.toml,$?)"; then \
	  set -x; $(BIN)/python setup.py --quiet build_ext --inplace; \
	elif test -e $(VENV)/dev.stamp; then \
	  set -x; $(BIN)/python -m pip install --quiet --no-build-isolation --editable .; \
	else \
	  set -x; $(BIN)/python -m pip install --quiet --editable .; \
	fi
	@touch $@

build: $(VENV)/dev.stamp $(VENV)/build.stamp

lint: build
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .

types: build
	$(BIN)/mypy

floors: build
	$(BIN)/lint-imports --no-logo

unit: build
	$(BIN)/pytest $(PYTEST_ARGS)

# Every target in turn, FUZZ_SECONDS each; `python -m tests.fuzz --help` has more. What is found is
# put into tests/fuzz/corpus, which `make test` replays.
fuzz: build
	$(BIN)/python -m tests.fuzz run --seconds $(FUZZ_SECONDS)

# Native tests and the fuzz corpus under AddressSanitizer and UndefinedBehaviorSanitizer, with a
# native layer built for that in build/sanitize.
sanitize: build
	$(BIN)/python -m tests.fuzz sanitize

# The tests with kcat are skipped where it is missing; on Debian root can have it installed.
kcat:
	@command -v kcat >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	  { apt-get install -qq -y kcat || { apt-get update -qq && apt-get install -qq -y kcat; }; } >/dev/null 2>&1; \
	} || echo "kcat is not installed: the tests with it will be skipped"

# The same with tests against real ZooKeeper servers; the package starts none by itself.
zookeeper:
	@test -e /usr/share/java/zookeeper.jar && command -v java >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	  { apt-get install -qq -y zookeeper || { apt-get update -qq && apt-get install -qq -y zookeeper; }; } >/dev/null 2>&1; \
	} || echo "ZooKeeper is not installed: the tests with it will be skipped"

# Mixed load over restarts for so long: nothing acknowledged may be lost, nothing may grow.
soak: build
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES)

wheel: $(VENV)/dev.stamp
	$(BIN)/python -m build --wheel --outdir dist .

sdist: $(VENV)/dev.stamp
	$(BIN)/python -m build --sdist --outdir dist .

docs: build
	$(BIN)/python -m trioq.cli.docs docs

# The pages and the reference from the docstrings as a site, in build/site.
site: $(VENV)/docs.stamp
	$(BIN)/mkdocs build --strict

$(VENV)/docs.stamp: $(VENV)/pip.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@

clean:
	rm -rf build dist *.egg-info trioq/_native/*.so
	find trioq/_native -name '*.c' ! -name '*_impl.c' -delete
