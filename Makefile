# make             build the fast NMS (lib/nms) with .venv's Python if there is one, else with $(PYTHON)
# make quickstart  everything from nothing: environment, drawn people, training, test, pictures
# make test        the test suite on all cores, with whatever it needs
# make lint        format and lint checks
PYTHON ?= python3
VENV := .venv
VPY := $(VENV)/bin/python
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.ready-dev
PIP := $(VPY) -m pip install --quiet --disable-pip-version-check

.PHONY: nms setup quickstart test lint clean

nms:
	@if [ -x $(VPY) ]; then $(VPY) lib/nms/build.py; else $(PYTHON) lib/nms/build.py; fi

setup: $(READY) nms

# A stamp is written last: an installation that was cut off is taken up again.
$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("error: HRPose needs Python 3.10 or newer; name one: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || { echo "error: cannot make a virtual environment (on Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	@echo "=> installing packages into $(VENV) (a few minutes; PyTorch is large)"
	@$(PIP) -r requirements.txt
	@touch $@

$(DEV_READY): $(READY) requirements-dev.txt requirements-export.txt
	@echo "=> installing what tests and exports need into $(VENV)"
	@$(PIP) -r requirements-dev.txt
	@$(PIP) -r requirements-export.txt || echo "=> some package for exports cannot be had here: their tests will be skipped"
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
