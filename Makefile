# Everything a newcomer needs is `make book` and `make test`; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
READY_JAX := .venv-jax/.ready
# Not gpu.py, which wants an accelerator: python benchmarks/gpu.py
BENCHMARKS := $(filter-out benchmarks/gpu.py,$(wildcard benchmarks/[a-z]*.py))

.DEFAULT_GOAL := help
.PHONY: help book serve test check lint execute bands mutants artifacts ladder faults bench sphinx lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

# The lock is complete; pip, left to look for more, misses `pydantic[email]` among its hashes.
$(READY): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the tested versions into .venv: minutes on a first run."
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# Keras on JAX, with no TensorFlow to fall back on: the proof that the library does not need it.
$(READY_JAX): tests/requirements-jax.txt $(READY)
	test -x .venv-jax/bin/python || $(PYTHON) -m venv .venv-jax
	.venv-jax/bin/python -m pip install --quiet --no-deps --require-hashes -r $<
	@touch $@

book: $(READY) ## render the site to _build/html from the stored outputs
	$(BIN)/python -m tools.build_book

serve: book ## render the site and open it on 127.0.0.1
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000

test: $(READY) $(READY_JAX) ## the whole suite, with the seconds of each part
	$(BIN)/python -m tools.run_tests $(PART)

check: $(READY) ## lint and unit tests, for every commit
	$(BIN)/python -m tools.run_tests lint unit

lint: $(READY) ## format, lint, types, spelling
	$(BIN)/python -m tools.run_tests lint

execute: $(READY) ## run all pages, or PAGE=chapters/…, and store their outputs
	$(BIN)/python -m tools.execute $(PAGE)

bands: $(READY) ## run pages from several seeds and record what their checks see
	$(BIN)/python -m tools.bands $(PAGE)

mutants: $(READY) ## break the library on purpose and see that a check of the page fails
	$(BIN)/python -m tools.mutants $(PAGE)

artifacts: $(READY) ## train the reference models anew and compare seeds (hours)
	$(BIN)/python -m tools.artifacts

ladder: $(READY) ## record the scaling ladder anew (an hour)
	$(BIN)/python -m tools.ladder

faults: $(READY) ## measure a planted fault for every clause, for the page of the standard
	$(BIN)/python -m tests.planted_faults

bench: $(READY) ## measure against what a user would otherwise pick
	@set -e; for script in $(BENCHMARKS); do $(BIN)/python $$script; done

sphinx: $(READY) ## prove that plain Sphinx builds the same sources
	$(BIN)/python -m tools.build_sphinx

lock: $(READY) ## solve the newest versions into requirements.txt
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --upgrade \
		--extra book --extra dev --generate-hashes --quiet \
		--custom-compile-command "make lock" --output-file requirements.txt
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --upgrade \
		--extra jax --extra data --extra test --generate-hashes --quiet --constraint requirements.txt \
		--custom-compile-command "make lock" --output-file tests/requirements-jax.txt

clean: ## remove what was built, not what was installed
	rm -rf _build .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
