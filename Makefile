# Two commands do everything on a fresh machine: 'make demo' and 'make test'. Python 3.11 or newer must be there.
PYTHON ?= python3
VENV ?= .venv
DEMO ?=
BIN = $(VENV)/bin

.PHONY: demo test docs size clean

demo: $(VENV)/.installed
	$(BIN)/unpaired demo $(DEMO)

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mkdocs build --strict --site-dir $(VENV)/site
	$(BIN)/pytest --numprocesses auto --maxprocesses 8 --dist loadfile

docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict --site-dir site

# The stamps are younger than pyproject.toml once everything it names is installed.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unpaired needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Lines and files of Python, room by room.
size:
	@for room in src/unpaired tests benchmarks $$(ls -d src/unpaired/*/); do \
	  printf '%7d lines %4d files  %s\n' $$(find $$room -name '*.py' -exec cat {} + | wc -l) \
	    $$(find $$room -name '*.py' | wc -l) $$room; done

clean:
	rm -rf $(VENV)
