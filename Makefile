# Everything a fresh machine needs is done by these targets themselves: Python 3.11 or newer and pip are enough.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
INPUTS := pyproject.toml constraints.txt
COMPILER := $(BIN)/python -P packager/engine_check/compiler.py
RIGHT_FLAGS = leave_out="$$($(COMPILER))"; link="$$($(COMPILER) --link)"; CFLAGS="$$CFLAGS $$leave_out" \
	CXXFLAGS="$$CXXFLAGS $$leave_out" LDFLAGS="$$LDFLAGS $$link"

# The bytes of quantized weights must not depend on compiler and architecture: ggml rounds every product (docs/systems.md).
export CFLAGS := $(CFLAGS) -ffp-contract=off

.PHONY: help demo test test-thorough agents field quick lint types check tables attack soak fuzz clean

help:
	@echo "make demo    build a package for laptop-cpu from random weights of the true shape, and show it"
	@echo "make test    run the tests: every behaviour, every engine"
	@echo "make test-thorough   and the variants of them: further engines, sizes and seeds, whole grids"
	@echo "make agents  build the lab's static agents, and compare what they say with the session here; four minutes each, once"
	@echo "make field   the tests of all checkpoints as people keep them, in every engine, and of the README at its true size; long"
	@echo "make lint    ruff and the import rules, in seconds; needs no engine"
	@echo "make types   mypy; needs no engine"
	@echo "make quick   the tests that need no engine and no long wait, under a minute"
	@echo "make check   lint, and mypy with every engine installed"
	@echo "make attack  mutants, kills, servers that lie, full disks: a quarter of an hour"
	@echo "make soak    fit, verify and run a hundred times, 60 tabs: does anything grow?"
	@echo "make fuzz    our parsers under atheris, guided by coverage: a quarter of an hour"
	@echo "make tables  ask llama.cpp again for the sizes of every preset (sizes.json, layers.json, tensor_types.json)"
	@echo "make clean   remove what these targets made (.venv, .venv-quick, .venv-lint, demo)"

# The demo needs one engine and no test tools, so a first look does not wait for the others.
$(VENV)/.demo: $(INPUTS) | $(VENV)/.made
	@echo "Installing qwen-pack with OpenVINO into $(VENV): about a minute and 0.6 GB, once."
	@$(PIP) -e '.[openvino]'
	@$(BIN)/python -m compileall -q packager targets tui
	@touch $@

# llama-cpp-python is compiled here when pip has no wheel of it yet: about five minutes on two cores, once. Compilers that break
# AMX leave it out, those that copy the C++ library into every library are told to share it, and a wheel that one of them made
# before is made anew; see packager/engine_check/compiler.py.
$(VENV)/.test: $(INPUTS) | $(VENV)/.made
	@echo "Installing qwen-pack with all engines and the test tools into $(VENV): several minutes, once."
	@$(RIGHT_FLAGS) $(PIP) -e '.[all,dev]'
	@if $(COMPILER) --installed-is-broken; then $(RIGHT_FLAGS) $(PIP) --force-reinstall --no-deps --no-cache-dir \
		--no-binary llama-cpp-python llama-cpp-python; fi
	@$(BIN)/python -m compileall -q packager targets tui
	@touch $@ $(VENV)/.demo

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "qwen-pack needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/qwen-pack build --target laptop-cpu --weights dummy --out demo/package

# A file's tests stay together, so that what its fixtures build is built once. A worker that an engine takes down is one failed
# test: so many may be replaced that an engine which dies at every use does not end the run.
# Two workers more than processors, as tests wait for children that start and for screens that settle; twelve at most, and no more
# than one for every 4 GiB of memory.
# What is marked `thorough` is a variant of what a cheaper test proves; what must hold before a change lands is both (.ci/run).
WORKERS = $$($(PYTHON) -c 'import os; gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30; \
	print(max(1, min(12, 2 + (os.cpu_count() or 1), gib // 4)))')
SUITE = $(BIN)/pytest -n $(WORKERS) --dist loadfile --max-worker-restart 400

test: $(VENV)/.test
	$(SUITE) -m 'not thorough'

test-thorough: $(VENV)/.test
	QWEN_PACK_HUGE_PAGES=1 $(SUITE) -m thorough

# Agents are compiled for four minutes each, once: a folder of their own keeps them, for the tests of the suite as well.
AGENTS ?= x86_64 aarch64 armv8.2-dotprod armv8.6-i8mm riscv64 riscv64-rvv
agents: $(VENV)/.test
	@$(PIP) -e '.[lab]'
	for name in $(AGENTS); do QWEN_PACK_CACHE=$(CURDIR)/.agents $(BIN)/qwen-pack agent build --for $$name || exit 1; done
	QWEN_PACK_AGENTS=$(CURDIR)/.agents $(BIN)/pytest -n 0 -rs tests/test_lab_variants.py

field: $(VENV)/.test
	QWEN_PACK_FIELD=all $(BIN)/pytest --timeout 1800 tests/test_yardstick.py tests/test_field.py tests/test_field_names.py \
		tests/test_field_speech.py tests/test_readme.py

# A venv of two packages: a change is linted before any engine is installed.
LINT := .venv-lint
$(LINT)/.made: constraints.txt
	@$(PYTHON) -m venv $(LINT)
	@$(LINT)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt ruff import-linter
	@touch $@

lint: $(LINT)/.made
	$(LINT)/bin/ruff check .
	$(LINT)/bin/ruff format --check .
	$(LINT)/bin/lint-imports

# The base install with the TUI and the test tools: no engine, nothing to compile.
QUICK := .venv-quick
$(QUICK)/.made: $(INPUTS)
	@$(PYTHON) -m venv $(QUICK)
	@$(QUICK)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tui,dev]'
	@touch $@

types: $(QUICK)/.made
	$(QUICK)/bin/mypy

quick: $(QUICK)/.made
	$(QUICK)/bin/pytest -n logical --maxprocesses 3 --dist loadfile --quick

check: $(VENV)/.test lint
	$(BIN)/mypy

# The types of the tensors of a preset are llama.cpp's own decision; without the tables every `fit` would have to ask it.
tables: $(VENV)/.test
	$(BIN)/python -m targets.gguf.sizes
	$(BIN)/python -m targets.gguf.layers
	$(BIN)/python -m targets.gguf.tensor_types_asked

attack: $(VENV)/.test
	$(BIN)/python -W ignore -m tests.attack

soak: $(VENV)/.test
	$(BIN)/python -W ignore -m tests.attack --mutants 0 --answers 0 --kills 0 --limits 0

# libFuzzer for Python has wheels for Linux alone, so it is no part of the other tools.
$(VENV)/.fuzz: $(INPUTS) | $(VENV)/.test
	@$(PIP) -e '.[fuzz]'
	@touch $@

fuzz: $(VENV)/.fuzz
	$(BIN)/python -W ignore -m tests.attack.fuzz

clean:
	rm -rf $(VENV) $(QUICK) $(LINT) .agents demo
