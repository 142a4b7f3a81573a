# Each target sets up what it needs: Python 3.11 or newer and make are all that a machine must have.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= auto

.PHONY: demo tools test test-coverage test-slow test-exhaustive test-gpu lint check-docs site bench bench-gpu clean

# The stamp says which extras are installed; it is renewed when the packaging changes.
$(VENV)/.demo: pyproject.toml aidotnet_py/version.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fast,plot,data]'
	touch $@

$(VENV)/.dev: pyproject.toml aidotnet_py/version.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.demo

$(VENV)/.site: pyproject.toml aidotnet_py/version.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[site]'
	touch $@

# All that CI's checks need, so that two of them can run at once.
tools: $(VENV)/.dev $(VENV)/.site

demo: $(VENV)/.demo
	$(BIN)/python examples/digits.py

# One BLAS thread a process: the test processes share the cores among them already.
test test-coverage test-slow test-exhaustive check-docs: export OPENBLAS_NUM_THREADS = 1
# The tests start hundreds of processes; without bytecode on disk each would compile the package anew.
test test-coverage test-slow test-exhaustive check-docs site: export PYTHONDONTWRITEBYTECODE =

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow and not docs'

# The default tests under coverage.py, which makes them slower; fails below `fail_under` of pyproject.toml.
test-coverage: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'not slow and not docs' --cov --cov-report=term

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m 'slow and not exhaustive'

# What CI leaves out: combinations of arguments whose parts the other tests have combined with others.
test-exhaustive: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m exhaustive

# On a machine with a GPU; CUDA=cuda12 for a driver of CUDA 12. One process, since each would take the device's memory.
CUDA ?= cuda13
test-gpu: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(CUDA)]'
	$(BIN)/python -m pytest -m gpu

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	PYTHONPATH=. $(BIN)/lint-imports

# The code in README, docs and examples, run as it stands there.
check-docs: $(VENV)/.dev $(VENV)/.site
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m docs tests/test_documentation.py

# All pages, the gallery's scripts run, and the reference, in docs/_build/html; without a network. Warnings and dead links are errors.
site: export OPENBLAS_NUM_THREADS = 1
site: $(VENV)/.site
	$(BIN)/python -m sphinx -b html -W --keep-going --quiet docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html

# On a machine without a GPU, install PyTorch's CPU build into the environment first: the plain one is several gigabytes.
bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks.run --json out/race.json
	$(BIN)/python -m benchmarks.overheads --json out/overheads.json
	$(BIN)/python -m benchmarks.seams --json out/seams.json
	$(BIN)/python -m benchmarks.figures out
	$(BIN)/python -m benchmarks.adaptation out
	$(BIN)/python -m benchmarks.meta_gradient out
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.scaling --json out/scaling.json

# For a machine with a CUDA device; CUDA=cuda12 where its driver is older than CUDA 13.
CUDA ?= cuda13
bench-gpu: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench,$(CUDA)]' 'jax[$(CUDA)]'
	$(BIN)/python -m benchmarks.gpu --json out/gpu.json

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage out docs/_build docs/api docs/gallery
