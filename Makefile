# Every target builds its own virtual environment on first use; it is renewed only when the dependencies change.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
OUT ?= runs/demo

.PHONY: demo test test-slow style quality clean

$(STAMP): setup.py pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check -e ".[demo,dev]"
	$(VENV)/bin/python -m pip install --disable-pip-version-check --no-deps resemblyzer==0.1.4
	touch $(STAMP)

demo: $(STAMP)
	$(VENV)/bin/solami demo --out $(OUT)

test: $(STAMP)
	$(VENV)/bin/pytest -n 2 --dist worksteal tests

test-slow: $(STAMP)
	$(VENV)/bin/pytest -m slow tests

# Rewrites the code where a rule allows it; `quality` only looks.
style: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

quality: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find solami_hf tests -name __pycache__ -type d -prune -exec rm -rf {} +
