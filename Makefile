# Each target sets up what it needs in .venv, so that any of them is the first command on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# the toy model is too small for a second thread to pay
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false

.PHONY: setup demo demo-seeds test test-slow test-kernels lint compile-report benchmarks format clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[report,dev]'
	touch $@

demo: setup  ## train SGSD on the toy world and show what it does: runs/demo/
	$(BIN)/sgsd demo --out runs/demo

demo-seeds: setup  ## the same on three seeds (about a quarter of an hour)
	$(BIN)/sgsd demo --seeds 0,1,2 --out runs/demo-seeds

# files are spread over two workers; each test needs one core, a few start processes of their own
test: setup  ## everything but the long studies
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-slow: setup
	$(BIN)/python -m pytest

test-kernels: setup  ## all kernel tests, full grids and compilation included
	$(BIN)/python -m pytest tests/kernels tests/support -n 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

compile-report: setup  ## every kernel for sm_80, sm_90 and sm_100, without a GPU
	$(BIN)/python -m benchmarks.compile_report

benchmarks: setup  ## the kernels beside their peers, on a GPU where there is one, else small on this CPU
	$(BIN)/python -m benchmarks.run_all --out runs/benchmarks

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist runs
