# Everything a fresh machine needs is done by these targets themselves: Python 3.11 or newer and pip are enough.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
INPUTS := pyproject.toml constraints.txt

.PHONY: help demo test check attack soak bench clean

help:
	@echo "make demo    build a package for laptop-cpu from random weights of the true shape, and show it"
	@echo "make test    run the tests"
	@echo "make check   ruff, mypy, import rules"
	@echo "make attack  mutants, kills, servers that lie, full disks: a quarter of an hour"
	@echo "make soak    fit, verify and run a hundred times: does anything grow?"
	@echo "make clean   remove what these targets made (.venv, demo)"

# The demo needs one engine and no test tools, so a first look does not wait for the others.
$(VENV)/.demo: $(INPUTS) | $(VENV)/.made
	@echo "Installing qwen-pack with OpenVINO into $(VENV): about a minute and 0.6 GB, once."
	@$(PIP) -e '.[openvino]'
	@$(BIN)/python -m compileall -q packager targets tui
	@touch $@

# llama-cpp-python is compiled here when pip has no wheel of it yet: about five minutes on two cores, once.
$(VENV)/.test: $(INPUTS) | $(VENV)/.made
	@echo "Installing qwen-pack with all engines and the test tools into $(VENV): several minutes, once."
	@$(PIP) -e '.[all,dev]'
	@$(BIN)/python -m compileall -q packager targets tui
	@touch $@ $(VENV)/.demo

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "qwen-pack needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/qwen-pack build --target laptop-cpu --weights dummy --out demo/package

# A file's tests stay together, so that what its fixtures build is built once.
test: $(VENV)/.test
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

attack: $(VENV)/.test
	$(BIN)/python -W ignore -m tests.attack

soak: $(VENV)/.test
	$(BIN)/python -W ignore -m tests.attack --mutants 0 --answers 0 --kills 0 --limits 0

clean:
	rm -rf $(VENV) demo
