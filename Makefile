# make serve: a broker at 127.0.0.1:9092 with data in ./trioq-data
# make test:  everything the tests need, then the whole suite

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
LISTEN ?= 127.0.0.1:9092
DATA   ?= ./trioq-data
PYTEST_ARGS ?=

NATIVE_SOURCES := $(wildcard trioq/_native/*.pyx trioq/_native/*.pxd trioq/_native/*_impl.c trioq/_native/*.h trioq/_native/posix_build.py)

.PHONY: serve test lint types floors unit wheel clean docs build

$(VENV)/pip.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "trioq needs Python 3.11 or newer; say which with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@touch $@

# What a user gets: the package, built in an isolated build environment.
$(VENV)/serve.stamp: $(VENV)/pip.stamp pyproject.toml setup.py $(NATIVE_SOURCES)
	$(BIN)/python -m pip install --quiet .
	@touch $@

# What a developer needs: tools, then the native layer built in place.
$(VENV)/dev.stamp: $(VENV)/pip.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(VENV)/build.stamp: $(VENV)/dev.stamp setup.py $(NATIVE_SOURCES)
	$(BIN)/python setup.py --quiet build_ext --inplace
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable .
	@touch $@ $(VENV)/serve.stamp

build: $(VENV)/build.stamp

serve: $(VENV)/serve.stamp
	$(BIN)/trioq serve --listen $(LISTEN) --data-dir $(DATA)

lint: $(VENV)/build.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/build.stamp
	$(BIN)/mypy

floors: $(VENV)/build.stamp
	$(BIN)/lint-imports

unit: $(VENV)/build.stamp
	$(BIN)/pytest $(PYTEST_ARGS)

test: lint types floors unit

wheel: $(VENV)/dev.stamp
	$(BIN)/python -m build --wheel --outdir dist .

docs: $(VENV)/build.stamp
	$(BIN)/python -m trioq.cli.docs docs

clean:
	rm -rf build dist *.egg-info trioq/_native/*.so
	find trioq/_native -name '*.c' ! -name '*_impl.c' -delete
