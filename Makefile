# `make demo` and `make test` each work alone in a fresh clone: they make .venv with a Python 3.11 or newer, install into it
# and run. A second run installs nothing unless settings.ini, setup.py or pyproject.toml changed.
# PYTHON=/path/to/python3.12 chooses the interpreter.

SHELL := /bin/bash
BIN := .venv/bin
OUT ?= demo
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo test check soak install dev export readme pictures benchmark constraints clean

help:  ## list what there is to do
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: install  ## draw some pets, train on them, search, and leave pictures of the answer in demo/
	@$(BIN)/image_similarity demo --out "$(OUT)"

test: dev  ## check that notebooks, modules and README agree, then run the notebooks and the tests
	@.ci/test.sh

check: dev  ## in a minute or so: export, pages, lint, types, and the fast tests of the rooms that changed since main
	@.ci/check.sh

soak: dev  ## run what computes with networks as other processors would, and the tests that take their time
	@.ci/soak.sh

install:  ## make .venv and install the package in it
	@.ci/install.sh

dev:  ## the same, with what is needed to work on the notebooks
	@.ci/install.sh dev

export: dev  ## write the modules from the notebooks, and clean the notebooks
	@export PATH="$(CURDIR)/$(BIN):$$PATH"; nbdev-export && nbdev-clean

readme: dev  ## run nbs/index.ipynb, and write README.md and the other pages that are made from something else
	@export PATH="$(CURDIR)/$(BIN):$$PATH"; \
	jupyter nbconvert --log-level=ERROR --to notebook --execute --inplace nbs/index.ipynb && \
	nbdev-clean --fname nbs/index.ipynb && python .ci/render_readme.py

pictures: dev  ## take the pictures and the transcript that the README shows from a fresh demo
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && set -o pipefail && \
	$(BIN)/image_similarity demo --out "$$folder/demo" | sed "s#$$folder/##g" | tee "$$folder/demo.txt" && \
	$(BIN)/python .ci/picture_page.py "$$folder/demo" "$$folder/demo/page.png" && \
	mkdir -p nbs/images && cp "$$folder"/demo/*.png "$$folder/demo.txt" nbs/images/

benchmark: dev  ## run every script in benchmarks/ and keep what it prints in benchmarks/results/ (takes a while)
	@set -e; for script in benchmarks/[a-z]*.py; do \
		echo "== $$script"; $(BIN)/python "$$script" --json "benchmarks/results/$$(basename "$$script" .py).json"; \
	done

constraints: dev  ## after a green `make test`: write the versions of everything that is installed into constraints.txt
	@$(BIN)/python .ci/constraints.py

clean:  ## remove .venv and everything else that can be made again
	rm -rf .venv demo build dist _docs _proc nbs/sidebar.yml *.egg-info .pytest_cache .hypothesis .numba_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
