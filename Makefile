# Two commands for a newcomer: `make run`, `make test`. `make check` is for before every commit.
PYTHON ?= python3
BIN := .venv/bin
NATIVE := hatch_build.py $(wildcard src/tapeout/graph/native/*.[ch]) src/tapeout/graph/native/build.py
EXTRAS ?= test

.PHONY: run test check slow clean

run: .venv/installed
	$(BIN)/tapeout run

test: .venv/installed-$(EXTRAS)
	NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" tests

slow: .venv/installed-$(EXTRAS)
	NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m slow tests

check: .venv/installed-$(EXTRAS)
	$(BIN)/ruff check src tests bench tools
	$(BIN)/ruff format --check src tests bench tools
	$(BIN)/pyright
	NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" tests/tiny tests/unit tests/house

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/pip pyproject.toml $(NATIVE)
	$(BIN)/pip install --disable-pip-version-check -q -e .
	$(BIN)/python -m tapeout.flow.warm
	touch $@

.venv/installed-$(EXTRAS): .venv/bin/pip pyproject.toml $(NATIVE)
	$(BIN)/pip install --disable-pip-version-check -q -e ".[$(EXTRAS)]"
	touch $@

clean:
	rm -rf .venv
