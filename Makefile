# make             build the compiled NMS (lib/nms) with .venv's Python if it exists, else with $(PYTHON)
# make setup       create .venv with the packages of requirements.txt, and build the NMS
# make quickstart  set up, then train and test a small network on synthetic people
# make test        set up, then run the tests on up to 8 cores
# make lint        check format and lint
# make clean       delete the built NMS and the caches of pytest and ruff
PYTHON ?= python3
VENV := .venv
VPY := $(VENV)/bin/python
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.ready-dev
# --no-compile saves time: pip would byte-compile all of PyTorch, but Python compiles what it imports anyway.
PIP := $(VPY) -m pip install --quiet --no-compile --disable-pip-version-check

.PHONY: nms setup quickstart test lint clean

nms:
	@if [ -x $(VPY) ]; then $(VPY) lib/nms/build.py; else $(PYTHON) lib/nms/build.py; fi

setup: $(READY) nms

# The stamp file is written last, so that an interrupted installation is repeated.
$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("error: HRPose needs Python 3.10 or newer, for example: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || { echo "error: cannot create a virtual environment (on Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	@echo "=> installing packages into $(VENV) (a few minutes; PyTorch is large)"
	@$(PIP) -r requirements.txt
	@touch $@

$(DEV_READY): $(READY) requirements-dev.txt requirements-export.txt requirements-int8.txt
	@echo "=> installing packages for tests and export into $(VENV)"
	@$(PIP) -r requirements-dev.txt
	@$(PIP) -r requirements-export.txt || echo "=> some export packages are not available on this machine: their tests will be skipped"
	@$(PIP) -r requirements-int8.txt || echo "=> NNCF is not available on this machine: its tests will be skipped"
	@touch $@

quickstart: setup
	$(VPY) tools/quickstart.py

test: $(DEV_READY) nms
	$(VPY) -m pytest -n auto --maxprocesses 8 --dist worksteal

lint: $(DEV_READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

clean:
	@if [ -x $(VPY) ]; then $(VPY) lib/nms/build.py --clean; else $(PYTHON) lib/nms/build.py --clean; fi
	rm -rf .pytest_cache .ruff_cache
