# `make demo` and `make test` are the whole set-up; everything else is for people who work on Edgeward.
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench soak clean
VENV := .venv
RUN := $(VENV)/bin
READY := $(VENV)/.ready
PROGRAMS := $(VENV)/.programs

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

$(READY): pyproject.toml constraints.txt packaging/bootstrap
	@packaging/bootstrap $(VENV)

$(PROGRAMS): $(READY)
	@packaging/bootstrap --programs
	@touch $@

demo: $(READY) ## a fleet, five devices and 569 real patients on this machine; ARGS=--headless ends by itself
	@$(RUN)/edgeward demo $(ARGS)

test: $(READY) $(PROGRAMS) ## every check, with its time; ARGS="unit integration" chooses tiers
	@$(RUN)/python tests/tiers.py $(ARGS)

lint: $(READY) ## ruff, mypy --strict, the dependency rule
	@$(RUN)/python tests/tiers.py lint

bench: $(READY) ## what the claims about speed rest on; takes minutes and wants a quiet machine
	@$(RUN)/python -m benchmarks $(ARGS)

soak: $(READY) ## the long forms: crash storms, large Hypothesis runs, a million broken requests; ARGS=tests/… takes one file
	@EDGEWARD_SOAK=1 $(RUN)/python tests/tiers.py $(or $(ARGS),stateful integration)

clean: ## forget the virtual environment and everything built
	rm -rf $(VENV) dist build artifacts
