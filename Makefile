# make demo                              simulate a small session and process it
# make demo SESSION=folder RECIPE=file   process tomograms of your own
# make up WATCH=file                     the whole service on this machine, in the foreground
# make test                              every check and test
# make coverage                          the tests, and which lines they run
# make oracles                           readers that make test then asks, too (1.4 GB)
# make bench                             what the engine does here, beside its peers
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SESSION ?=
RECIPE ?=
WATCH ?=

# Two cores shared by Dask's workers: threads that spin would starve each other.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export PREFECT_HOME ?= $(CURDIR)/.prefect
# copick needs zarr 2 and cryoCAT a web server: they read what is written from their own place.
ORACLES := .venv-oracles
export TOMOSEG_COPICK_PYTHON ?= $(wildcard $(CURDIR)/$(ORACLES)/bin/python)

.PHONY: demo up test coverage lint install oracles models bench clean

install: $(INSTALLED)

# Debian's python3 may come without ensurepip: pip then installs itself into the environment.
$(INSTALLED): pyproject.toml constraints.txt
	@echo "installing into $(VENV) (about 2 minutes, 2 GB)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) 2>/dev/null || { \
		$(PYTHON) -m venv --clear --without-pip $(VENV) && \
		$(PYTHON) -m pip --quiet --python $(BIN)/python install pip; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev,s3,dashboard]'
	@touch $@

ifeq ($(SESSION),)
demo: $(INSTALLED) demo/input/simulated_9002.mrc
	$(BIN)/python -m flows.session $(RECIPE) --input demo/input --output demo/output
	@echo; echo "voxel scores of simulated_9001, a seed that was never trained on:"
	@$(BIN)/tomoseg evaluate demo/output/simulated_9001/tomogram.zarr \
		demo/input/truth/simulated_9001__labels.mrc
	@echo; echo "microtubule and actin centre lines, ribosome positions:"
	@for class in microtubule actin; do $(BIN)/tomoseg evaluate \
		demo/output/simulated_9001/filaments/simulated_9001__$$class.csv \
		demo/input/truth/simulated_9001__filaments.csv; done
	@$(BIN)/tomoseg evaluate demo/output/simulated_9001/particles/simulated_9001__ribosome.csv \
		demo/input/truth/simulated_9001__particles.csv
	@echo; echo "look at demo/output/index.html"
else
demo: $(INSTALLED)
	$(BIN)/python -m flows.session $(RECIPE) --input '$(SESSION)' --output demo/output
	@echo "look at demo/output/index.html"
endif

demo/input/simulated_9002.mrc: | $(INSTALLED)
	$(BIN)/tomoseg simulate demo/input --tomograms 2 --seed 9001 --shape 64,256,256 --density 3

up: $(INSTALLED)
	$(BIN)/python deploy/workstation/up.py $(WATCH)

# The shipped models again, and their scores on what they never saw: simulation takes 12 minutes,
# training three hours; the results are in demo/models.
LIKE := --shape 96,320,320 --density 3
models: $(INSTALLED)
	$(BIN)/tomoseg simulate demo/training/usual --tomograms 28 --seed 1000 $(LIKE)
	$(BIN)/tomoseg simulate demo/training/wide --tomograms 44 --seed 2000 $(LIKE) --wide
	$(BIN)/tomoseg train tomoseg/models/six-features/first.yaml
	$(BIN)/tomoseg train tomoseg/models/six-features/recipe.yaml
	$(BIN)/tomoseg train tomoseg/models/six-features-accurate/recipe.yaml
	$(BIN)/python tests/benchmarks/shipped.py demo/models/six-features demo/scores
	$(BIN)/python tests/benchmarks/shipped.py demo/models/six-features-accurate demo/scores

# Ratios against peers and against ourselves, into demo/bench/bench.md; an hour, on a quiet machine.
bench: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[bench]'
	$(BIN)/python tests/benchmarks/bench.py demo/bench

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

TESTS := $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile \
	--no-loadscope-reorder --durations=15

test: lint
	$(TESTS)

# Not part of make test: Python 3.11 traces line by line, which takes half as much time again.
coverage: $(INSTALLED)
	$(TESTS) --cov --cov-report=
	@echo; echo "the ten modules of which the tests' own processes run least, and all:"
	@$(BIN)/coverage report --sort=cover | sed -n '1,12p;/^TOTAL/p'

oracles: $(INSTALLED)
	@test -x $(ORACLES)/bin/python || $(BIN)/python -m venv --without-pip $(ORACLES)
	@$(BIN)/python -m pip --quiet --disable-pip-version-check --python $(ORACLES)/bin/python \
		install copick==1.31.0 cryocat==0.7.1

clean:
	rm -rf $(VENV) $(ORACLES) demo .prefect .tomoseg .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.coverage
