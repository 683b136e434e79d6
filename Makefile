# Every target is one plain command in a virtual environment of its own; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help install demo test lint labs-html clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/'

$(BIN)/fslab: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

install: $(BIN)/fslab  ## make .venv and install fslab

demo: install  ## extract, train, swap and evaluate the packaged people
	$(BIN)/fslab demo --out demo_out --overwrite

$(BIN)/pytest: $(BIN)/fslab
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

test: $(BIN)/pytest  ## install what the tests need and run all of them
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(BIN)/pytest  ## check style and format
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

labs-html: $(BIN)/pytest  ## run every lab and write pages of them to labs_html
	mkdir -p labs_html
	$(BIN)/jupyter nbconvert --to html --execute --output-dir labs_html labs/*.ipynb

clean:  ## remove the environment and the demo
	rm -rf $(VENV) demo_out labs_html
