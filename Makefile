# Everything runs in .venv, which the first target that needs it sets up (nothing is compiled).
#   make run                the quickstart
#   make run DATA=FOLDER    the published LatentQA rows in FOLDER
#   make test               checks and tests; make prove: the full counts; make check: ruff and mypy
#   make coverage           the tests with branch coverage; make reference: pages that follow from code
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# loopback only: tests and the quickstart ask no hub for anything
OFFLINE := HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1
# many processes import the same files: they are compiled once, whatever the shell says
# more workers than cores: many tests wait, for servers, clocks and disks
WORKERS ?= 3
TESTS := $(OFFLINE) OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m "not prove" -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: run test coverage prove check reference setup clean

run: setup
ifdef DATA
	@$(OFFLINE) $(BIN)/latentqa run experiments/latentqa_eval.yaml --set data.path="$(DATA)" $(ARGS)
else
	@$(OFFLINE) $(BIN)/latentqa run experiments/quickstart.yaml $(ARGS)
endif

# mypy, which has one thread and no cache in a fresh clone, runs beside the first tests
test: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy & types=$$!; $(TESTS) $(ARGS); failed=$$?; wait $$types && exit $$failed

coverage: setup
	@$(TESTS) --cov --cov-report=term-missing:skip-covered $(ARGS)

prove: setup
	@$(OFFLINE) $(BIN)/python scripts/prove.py $(ARGS)

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

reference: setup
	@$(BIN)/python scripts/reference.py

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): about 2 GB of packages, two minutes with a near index ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[local,dev]'
	@echo "Fetching the embedded model (98 MB), and making the copy that loads in a second ..."
	@$(BIN)/latentqa setup embedded --convert >/dev/null
	@touch $@
	@echo "Ready. To type latentqa yourself:  . $(BIN)/activate"

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage
