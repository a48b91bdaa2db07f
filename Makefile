# `make book` builds the report, `make test` runs the tests, `make check` in a minute what needs no real model.
# With an environment active (virtualenv or conda, but not conda's base) it is used as it is; else .venv is made by
# lib/install.py.

PYTHON ?= python3
RUN ?= demo
# auto: Quarto where it is installed or can be installed, else pandoc; or quarto, or pandoc
RENDERER ?= auto

ACTIVE := $(or $(VIRTUAL_ENV),$(if $(filter base,$(CONDA_DEFAULT_ENV)),,$(CONDA_PREFIX)))
BIN := $(or $(ACTIVE),$(CURDIR)/.venv)/bin

# a whole .venv is kept; one of another Python only where none is asked for by PYTHON=
INSTALL = "$(if $(ACTIVE),python3,$(PYTHON))" lib/install.py $(if $(ACTIVE),--active "$(ACTIVE)") \
	$(if $(filter file,$(origin PYTHON)),--any-python)

.PHONY: book results test check clean environment help
book: environment
	@$(if $(filter auto,$(RENDERER)),$(INSTALL) --quarto)
	@PATH="$(BIN):$$PATH" python -m token_geometry book $(RUN) --renderer $(RENDERER)

results: environment
	@PATH="$(BIN):$$PATH" python -m token_geometry run $(RUN)

test: environment
	@PATH="$(BIN):$$PATH" python -m pytest lib

check:
	@$(INSTALL) --dev
	@PATH="$(BIN):$$PATH" python lib/check.py

environment:
	@$(INSTALL)

help:
	@echo "make environment          install, and compute nothing"
	@echo "make book [RUN=demo]      compute what is missing of a run, and render its book"
	@echo "make results [RUN=demo]   the same without the book"
	@echo "make test, make check     all tests; in a minute, what every change must pass"
	@echo "make clean                remove books; results and downloads stay"

# leaves results and downloads alone: they are what takes long
clean:
	rm -rf _book .quarto
