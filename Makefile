# `make help` lists the targets.
SHELL := /bin/bash
# Without the functions, options and start-up file of a user's own shell.
.SHELLFLAGS := -pc
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
-include src/vae/environment.mk
# Of a pipeline that runs make in a stage of its own.
unexport DVC_ROOT DVC_STAGE DVC_EXP_NAME DVC_EXP_BASELINE_REV
# A user of a container may have no home.
export HOME ?= $(CURDIR)/.venv

.PHONY: help setup repro test test-all demo verify bench bench-growth study check track ui experiments lint audit figures lock
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## |^##@ ' '/^##@ / {print $$2} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

##@ Start
setup: .venv/.installed ## Install requirements.lock into .venv, checked by hash

# What an environment has: its folder, interpreter and packages, but pip, which a user may renew.
STATE = { pwd -P; .venv/bin/python -ISc 'import sys; print(sys.version_info[:2])'; \
    printf '%s\n' .venv/bin/* .venv/lib/python3.*/site-packages/*; } 2> /dev/null | grep -vE '/(pip[^/]*|__pycache__)$$'
# One that has no longer what it had, by hand or by an upgrade of the system, is repaired.
LOST := $(shell cat .venv/.{installed,study,bench,services,ci} 2> /dev/null | grep -vxFf <($(STATE)))
ifneq ($(LOST),)
.PHONY: .venv/.installed
endif
.venv/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or later is needed; name one with PYTHON=, as in make setup PYTHON=python3.11")'
	@git rev-parse --git-dir > /dev/null || { echo "error: git cannot use this folder, for the reason above; run in a git clone" >&2; exit 1; }
	@PYTHON="$(PYTHON)" src/tools/install.sh requirements.lock $(filter .venv/%,$(LOST))
	@$(STATE) > $@

# SET and GRID go as typed: make and the shell would take spaces, quotes and $ for their own.
repro: export VALUES = $(value SET)
repro: setup ## Run the pipeline; SET="train.epochs=2" tries another value
	python src/tools/repro.py $(if $(value SET),-S "$$VALUES")

# Slow, beside a start of MLflow's pages: compilers, the documented commands, extreme parameters, bad
# disks, kills, many at once, Ray, MLflow's server, rebuilds.
SLOW = $(patsubst %,tests/test_%.py,compilers library setup commands extremes failures kill many study tracking_server verify)
# Two workers of pytest-xdist with half the tests each, on one core each; the first to end takes over some.
PYTEST = OMP_NUM_THREADS=1 pytest -n 2 --dist worksteal
test: setup ## Run the tests, but for the slow ones
	$(PYTEST) --ignore tests/services $(addprefix --ignore ,$(SLOW)) \
	    --deselect tests/test_security.py::test_make_ui_listens_on_the_loopback_alone

demo: setup ## Run on scikit-learn's digits elsewhere: no network, no MNIST
	python src/tools/demo.py

##@ Look
ui: setup ## Show the runs in MLflow, on 127.0.0.1:5000 (PORT= for another)
	@python src/tools/ui.py $(if $(PORT),--port "$(PORT)")

track: setup ## Bring MLflow up to date, after it was off or away
	python src/tools/track.py models metrics plots report.html

check: setup ## Judge the published numbers; compare with the commit's
	python src/tools/check.py

##@ Experiment
experiments: export VALUES = $(value GRID)
experiments: setup ## Compare experiments; GRID="train.beta=1,4" runs them first
	python src/tools/experiments.py $(if $(value GRID),"$$VALUES")

study: .venv/.study ## Train with 20 seeds, on all cores; finished ones are kept
	python src/tools/study.py --seeds 0-19 --output studies/seeds.csv
	PYTHONPATH=src python studies/pretraining.py data/binarized studies/pretraining.csv
	PYTHONPATH=src python studies/bias.py data/binarized models studies/likelihood.csv
	dvc commit --quiet --force studies/dvc.yaml

##@ Verify
verify: setup ## Rebuild twice, all else varied; compare every output
	python src/tools/verify.py $(OPTIONS)

test-all: .venv/.study .venv/.services ## Run all tests; browser and PostgreSQL where installed
	$(PYTEST)

bench: .venv/.bench ## Time an epoch against others; benchmarks/results.json
	PYTHONPATH=src python benchmarks/bench.py
	PYTHONPATH=src python benchmarks/convolutions.py

bench-growth: setup ## Time by size; writes benchmarks/growth.png
	PYTHONPATH=src python benchmarks/growth.py

##@ Maintain
lint: .venv/.ci ## Check the code's style, and CI's workflows by their schema and for unsafe habits
	ruff check .
	ruff format --check .
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	zizmor --quiet --offline .github

audit: .venv/.ci ## Look for known vulnerabilities of the locked packages; asks PyPI
	pip-audit --strict --disable-pip --require-hashes $(addprefix --requirement ,$(LOCKS))

figures: ## Copy the README's figures from plots/
	@mkdir -p docs/figures
	cp $(addprefix plots/,losses.png originals.png reconstruction.gif manifold.gif manifold-regions.png latent.png samples.png kl-divergence.png anomalies.png) docs/figures/

LOCKS = requirements.lock $(addsuffix /requirements.lock,benchmarks studies tests/services .github)
LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
lock: setup ## Renew every requirements.lock from pyproject.toml
	$(LOCK) --extra dev pyproject.toml --output-file requirements.lock
	echo jax | $(LOCK) --constraint requirements.lock - --output-file benchmarks/requirements.lock
	echo 'ray>=2.60,<3' | $(LOCK) --constraint requirements.lock - --output-file studies/requirements.lock
	printf '%s\n' selenium psycopg2-binary dvc-ssh | $(LOCK) --constraint requirements.lock - --output-file tests/services/requirements.lock
	printf '%s\n' zizmor check-jsonschema pip-audit | $(LOCK) --constraint requirements.lock - --output-file .github/requirements.lock

# Set-up removes what requirements.lock does not name, so these come after it.
.venv/.bench: benchmarks/requirements.lock
.venv/.study: studies/requirements.lock
.venv/.services: tests/services/requirements.lock
.venv/.ci: .github/requirements.lock
.venv/.bench .venv/.study .venv/.services .venv/.ci: .venv/.installed
	@src/tools/install.sh $(filter %.lock,$^)
	@$(STATE) > $@
