# `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Neither DVC nor MLflow reports usage from here.
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
# A user's own modules and modes of Python are not for what runs here.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONOPTIMIZE

.PHONY: help setup repro test test-all demo verify bench bench-growth study check track ui experiments lint figures lock
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## |^##@ ' '/^##@ / {print $$2} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

##@ Start
setup: .venv/.installed ## Make .venv and install requirements.lock into it, checked by hash

# An environment has its folder's name in it: one that was copied or renamed is made again.
ifneq ($(shell cat .venv/.installed 2> /dev/null),$(CURDIR))
.PHONY: .venv/.installed
endif
# uv comes from the lock too, by the entry that starts with its name.
.venv/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or later is needed; name one with PYTHON=, as in make setup PYTHON=python3.11")'
	@git rev-parse --git-dir > /dev/null || { echo "error: git cannot use this folder, for the reason above; run in a git clone" >&2; exit 1; }
	@set -e; \
	test "$$(cat .venv/.installed 2> /dev/null)" = "$(CURDIR)" || rm -rf .venv; \
	echo "Installing the packages of requirements.lock into .venv; the first time this takes a minute"; \
	test -x .venv/bin/pip || $(PYTHON) -m venv .venv; \
	awk '/^uv==/ {on = 1} on {print} on && !/\\$$/ {exit}' requirements.lock > .venv/uv.lock; \
	.venv/bin/pip install --quiet --require-hashes --requirement .venv/uv.lock; \
	place=$$(.venv/bin/uv cache dir); { mkdir -p "$$place" && test -w "$$place"; } 2> /dev/null || export UV_NO_CACHE=1; \
	.venv/bin/uv pip sync --require-hashes --compile-bytecode --python .venv/bin/python requirements.lock
	@.venv/bin/python -c 'import vl_convert; print(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed"))' > .venv/vega.js
	@echo "$(CURDIR)" > $@

repro: setup ## Run the pipeline; SET="train.epochs=2" with another value of params.yaml
	python src/tools/repro.py $(addprefix -S ,$(SET))

# Slow, beside a start of MLflow's pages: compilers, the documented commands, extreme parameters, bad
# disks, kills, many at once, Ray, MLflow's server, rebuilds.
SLOW = $(patsubst %,tests/test_%.py,kernel commands extremes failures kill many study tracking_server verify)
# Two workers of pytest-xdist with half the tests each, on one core each; the first to end takes over some.
PYTEST = OMP_NUM_THREADS=1 pytest -n 2 --dist worksteal
test: setup ## Run the tests, but for the slow ones
	$(PYTEST) --ignore tests/services $(addprefix --ignore ,$(SLOW)) \
	    --deselect tests/test_security.py::test_make_ui_listens_on_the_loopback_alone

demo: setup ## Run the pipeline in a scratch folder on scikit-learn's digits, without network or MNIST
	python src/tools/demo.py

##@ Look
ui: setup ## Show the runs in MLflow, on 127.0.0.1:5000 (PORT= for another)
	@python src/tools/ui.py $(if $(PORT),--port "$(PORT)")

track: setup ## Bring MLflow up to date with the files, after it was off or away
	python src/tools/track.py models metrics plots report.html

check: setup ## Judge every published number, and compare with the committed verdicts
	python src/tools/check.py

##@ Experiment
experiments: setup ## Compare the experiments; GRID="train-20d.latent_size=5,10" runs some first
	python src/tools/experiments.py $(GRID)

study: .venv/.study ## Train both models with 20 seeds, on all cores; what is finished is kept
	python src/tools/study.py --seeds 0-19 --output studies/seeds.csv
	python src/tools/pretraining.py data/binarized studies/pretraining.csv
	python src/tools/bias.py data/binarized models studies/likelihood.csv
	dvc commit --quiet --force studies/dvc.yaml

##@ Verify
verify: setup ## Rebuild twice with all varied that must not matter and compare every output's bits
	python src/tools/verify.py $(OPTIONS)

test-all: .venv/.study .venv/.services ## Run all tests; browser and PostgreSQL where installed
	$(PYTEST)

bench: .venv/.bench ## Time an epoch against what people would use instead; writes benchmarks/results.json
	PYTHONPATH=src python benchmarks/bench.py

bench-growth: setup ## How time grows with batch, width, latent size and epochs; writes benchmarks/growth.png
	PYTHONPATH=src python benchmarks/growth.py

##@ Maintain
lint: setup ## Check the code's style
	ruff check .
	ruff format --check .

figures: ## Copy the README's figures from plots/
	@mkdir -p docs/figures
	cp $(addprefix plots/,losses.png originals.png reconstruction.gif manifold.gif manifold-regions.png latent.png kl-divergence.png anomalies.png) docs/figures/

LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
lock: setup ## Renew every requirements.lock from pyproject.toml
	$(LOCK) --extra dev pyproject.toml --output-file requirements.lock
	echo jax | $(LOCK) --constraint requirements.lock - --output-file benchmarks/requirements.lock
	echo 'ray>=2.60,<3' | $(LOCK) --constraint requirements.lock - --output-file studies/requirements.lock
	printf '%s\n' selenium psycopg2-binary dvc-ssh | $(LOCK) --constraint requirements.lock - --output-file tests/services/requirements.lock

# Set-up removes what requirements.lock does not name, so these come after it.
.venv/.bench: benchmarks/requirements.lock
.venv/.study: studies/requirements.lock
.venv/.services: tests/services/requirements.lock
.venv/.bench .venv/.study .venv/.services: .venv/.installed
	uv pip install --quiet --require-hashes --python .venv/bin/python --requirement $(filter %.lock,$^)
	@touch $@
