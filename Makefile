# `make book` builds the report, `make test` runs the tests.
# With an environment active (virtualenv or conda) it is used as it is; else .venv is made with pip.

PYTHON ?= python3
RUN ?= demo
# auto: Quarto where it is installed or can be installed, else pandoc; or quarto, or pandoc
RENDERER ?= auto

ifneq ($(or $(VIRTUAL_ENV),$(CONDA_PREFIX)),)
BIN := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX))/bin
READY := check-environment
else
BIN := $(CURDIR)/.venv/bin
READY := .venv/ready
endif

.PHONY: book results test clean check-environment
book: $(READY)
	@PATH="$(BIN):$$PATH" python -m token_geometry book $(RUN) --renderer $(RENDERER)

results: $(READY)
	@PATH="$(BIN):$$PATH" python -m token_geometry run $(RUN)

test: $(READY)
	@PATH="$(BIN):$$PATH" python -m pytest lib

check-environment:
	@"$(BIN)/python" -c "import token_geometry" 2>/dev/null || { echo "error: the active environment \
	$(or $(VIRTUAL_ENV),$(CONDA_PREFIX)) lacks token_geometry: deactivate it, or pip install -e lib" >&2; exit 1; }

.venv/ready: lib/requirements.txt lib/pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --disable-pip-version-check --progress-bar off --quiet --editable lib
	touch $@

# leaves results and downloads alone: they are what takes long
clean:
	rm -rf _book .quarto
