# Ratchet. `make` alone says what there is.

PYTHON ?= python3
ARGS ?=
# What pip needs to find another build of torch, e.g. --index-url <the address that pytorch.org shows for your CUDA>.
TORCH_ARGS ?=

BIN := .venv/bin
RUN_STAMP := .venv/.installed
DEV_STAMP := .venv/.installed-dev
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help install demo up test lint bench clean base-data base-train base-eval names-data names-train names-eval

help:
	@echo "make demo      the whole loop on the demo content; then the platform runs until Ctrl-C (ARGS=--exit: stops)"
	@echo "make up        the platform alone: database, web, workers, engine (ARGS='--port 8080')"
	@echo "make test      the whole test suite (ARGS='-k supervisor -x')"
	@echo "make lint      ruff, mypy --strict, import-linter, missing migrations"
	@echo "make bench     lists the benchmarks; make bench-NAME runs one"
	@echo "make base-data, base-train, base-eval   the bundled base model: see models/base/README.md"
	@echo "make names-data, names-train, names-eval   the model that finds names: see models/names/README.md"
	@echo "make clean     removes caches and build leftovers (not .venv, not var)"

# torch goes first and alone: later steps then find its pin satisfied, whichever build was chosen.
$(RUN_STAMP): pyproject.toml constraints.txt requirements/torch-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is `$(PYTHON) --version 2>&1`. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || { echo "[install 1/3] virtual environment in .venv"; $(PYTHON) -m venv .venv; } || \
	  { echo "No virtual environment could be made. On Debian and Ubuntu: apt install python3-venv"; rm -rf .venv; exit 1; }
	@echo "[install 2/3] torch"
	@$(PIP) -r requirements/torch-cpu.txt $(TORCH_ARGS)
	@echo "[install 3/3] the pinned set (about 2 GB with torch; one to three minutes)"
	@$(PIP) -c constraints.txt -e '.[all]'
	@touch $@

$(DEV_STAMP): $(RUN_STAMP)
	@echo "[install +] tools for tests and checks"
	@$(PIP) -c constraints.txt -e '.[all,dev]'
	@touch $@

install: $(RUN_STAMP)

demo: $(RUN_STAMP)
	@exec $(BIN)/python manage.py demo $(ARGS)

up: $(RUN_STAMP)
	@exec $(BIN)/python manage.py up $(ARGS)

# Two processes share the files out (ARGS='-n 0': one for all). Browser tests drive a Chromium that is already there, or
# Debian's where this may install it; else they are skipped.
test: $(DEV_STAMP)
	@$(BIN)/python -m tests.browser --install
	@exec $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run

bench:
	@$(PYTHON) -c 'import ast, pathlib; \
	files = [f for f in sorted(pathlib.Path("bench").glob("*.py")) if not f.name.startswith("_")]; \
	[print("make bench-%-18s %s" % (f.stem, (ast.get_docstring(ast.parse(f.read_text())) or "").split("\n")[0])) for f in files]; \
	files or print("There is no benchmark in bench/ yet.")'

bench-%: $(RUN_STAMP)
	@test -f bench/$*.py || { echo "There is no benchmark named $*; make bench lists them."; exit 1; }
	@exec $(BIN)/python bench/$*.py $(ARGS)

# The bundled base model: rows, weights, examination. WORK holds rows and checkpoints, MANUALS the unpacked documentation.
WORK ?= var/base_model
MANUALS ?= $(WORK)/manuals

base-data: $(RUN_STAMP)
	@$(BIN)/python -m training.base_model.generate --manuals $(MANUALS) --out $(WORK)/data $(ARGS)

base-train: $(RUN_STAMP)
	@$(BIN)/python -m training.base_model.train --data $(WORK)/data --out $(WORK)/run $(ARGS)
	@$(BIN)/python -m training.base_model.export --checkpoint $(WORK)/run --data $(WORK)/data --out $(WORK)/model

base-eval: $(RUN_STAMP)
	@$(BIN)/python -m training.base_model.evaluate $(ARGS)

# The name model: labelled texts, training (on the clock, two processes of one thread), development sets.
NAMES ?= var/names
MINUTES ?= 40

names-data: $(DEV_STAMP)
	@PYTHONPATH=.:platform $(BIN)/python -m training.name_model.generate --out $(NAMES)/data $(ARGS)

names-train: $(DEV_STAMP)
	@PYTHONPATH=.:platform nice -n 5 $(BIN)/python -m training.name_model.train --data $(NAMES)/data --out $(NAMES)/run --minutes $(MINUTES) $(ARGS)
	@PYTHONPATH=.:platform $(BIN)/python -m training.name_model.export --run $(NAMES)/run --data $(NAMES)/data
	@PYTHONPATH=.:platform $(BIN)/python -m training.name_model.glance --data $(NAMES)/data

names-eval: $(DEV_STAMP)
	@PYTHONPATH=.:platform $(BIN)/python -m training.name_model.evaluate $(ARGS)

clean:
	@rm -rf build dist test-artifacts .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
