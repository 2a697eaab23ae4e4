# make explore   install and open the dashboard on the trained weights that ship
# make test      install and run every test
PYTHON ?= python3
PORT ?= 5006
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install explore test lint weights clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('sciml-fm needs Python 3.11 or newer, this is ' + sys.version.split()[0]) if sys.version_info < (3, 11) else None"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

explore: install
	@echo "Opening http://localhost:$(PORT)/explore (Ctrl-C stops it)"
	$(BIN)/panel serve dashboards/explore.py --port $(PORT) --show --allow-websocket-origin localhost:$(PORT) --allow-websocket-origin 127.0.0.1:$(PORT)

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist *.egg-info
