# Three commands for a fresh clone: `make demo`, `make train-demo` and `make test`. Each creates .venv when it is missing.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check --quiet --quiet install --constraint constraints.txt
# Stamps inside the environment: what has been installed into it, and when.
BASE_STAMP := $(VENV)/.created
DEMO_STAMP := $(VENV)/.installed-demo
TRAIN_STAMP := $(VENV)/.installed-train
TEST_STAMP := $(VENV)/.installed-test
# A second environment, with the newest releases that pyproject.toml allows in place of the pinned ones.
LATEST := .venv-latest
LATEST_PIP := $(LATEST)/bin/python -m pip --disable-pip-version-check --quiet --quiet install --upgrade
# Where mypy sees training/ and eval/ under the names that they are installed by.
TYPE_TREE := .mypy_cache/tree

.DEFAULT_GOAL := help
.PHONY: help demo train-demo test test-latest docs lint wheel clean

help:
	@echo "make demo        search and rerank the packaged collection, with a real small model"
	@echo "make train-demo  train the embedded model with GRPO and show before and after; some minutes"
	@echo "make test        run the tests"
	@echo "make test-latest run the tests of loading, decoding, ranking and training with the newest releases of the libraries"
	@echo "make docs        build the documentation into site/; a broken link fails the build"
	@echo "make lint        ruff and mypy"
	@echo "make wheel       build the wheel and the sdist into dist/"
	@echo "make clean       remove .venv and everything that was built"

$(BASE_STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not that. Name another one: make PYTHON=python3.12 demo" >&2; \
		exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(DEMO_STAMP): $(BASE_STAMP) pyproject.toml constraints.txt
	@echo "Installing r1ranker-ir[small] into $(VENV); PyTorch is large, so the first time takes a while" >&2
	@$(PIP) --editable '.[small]'
	@$(VENV)/bin/r1ranker model install small --quiet || echo "The demo goes on without the small model" >&2
	@touch $@

$(TRAIN_STAMP): $(BASE_STAMP) pyproject.toml constraints.txt
	@echo "Installing r1ranker-ir[local,train] into $(VENV); PyTorch is large, so the first time takes a while" >&2
	@$(PIP) --editable '.[local,train]'
	@touch $@

$(TEST_STAMP): $(BASE_STAMP) pyproject.toml constraints.txt
	@echo "Installing r1ranker-ir[local,openai,langchain,eval,pyserini,ray,litellm,serve,train,dev] into $(VENV); the first time takes a while" >&2
	@$(PIP) --editable '.[local,openai,langchain,eval,pyserini,ray,serve,train,dev]'
	@# By itself: together with the others, pip 23 collects garbage for many minutes before it ends.
	@$(PIP) --editable '.[litellm]'
	@touch $(TRAIN_STAMP) $@

demo: $(DEMO_STAMP)
	@$(VENV)/bin/r1ranker demo

# What is finished is not done again: make train-demo OVERWRITE=1 does.
# glibc would give large blocks back to the system after every step, and getting them again takes long; told here to keep
# them. Other C libraries do not look at these.
train-demo: export MALLOC_MMAP_THRESHOLD_ := 1073741824
train-demo: export MALLOC_TRIM_THRESHOLD_ := 4294967296
train-demo: export MALLOC_TOP_PAD_ := 268435456
train-demo: $(TRAIN_STAMP)
	@$(VENV)/bin/r1ranker train demo $(if $(OVERWRITE),--overwrite)

# Three on two cores: many tests wait for a process or a server.
test: $(TEST_STAMP)
	@$(RUN) -m pytest --numprocesses 3 --dist worksteal

# Installs anew each time, since releases come without a change here. LiteLLM by itself, as above.
test-latest:
	@test -x $(LATEST)/bin/python || $(PYTHON) -m venv $(LATEST)
	@echo "Installing the newest releases that pyproject.toml allows into $(LATEST)" >&2
	@$(LATEST_PIP) pip
	@$(LATEST_PIP) --upgrade-strategy eager --editable '.[local,openai,langchain,train,dev]'
	@$(LATEST_PIP) --editable '.[litellm]'
	@$(LATEST)/bin/python -m pip check
	@$(LATEST)/bin/python -m pip freeze --exclude-editable | grep -iE '^(torch|transformers|tokenizers|peft|trl|accelerate|datasets|openai|langchain-core|litellm)=='
	@$(LATEST)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal -m 'latest and not slow and not gpu and not llamacpp'

docs: $(TEST_STAMP)
	@$(VENV)/bin/zensical build --clean --strict

lint: $(TEST_STAMP)
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check --quiet .
	@rm -rf $(TYPE_TREE) && mkdir -p $(TYPE_TREE)/r1ranker_ir
	@ln -s $(CURDIR)/r1ranker_ir/* $(CURDIR)/training $(CURDIR)/eval $(TYPE_TREE)/r1ranker_ir/
	@cd $(TYPE_TREE) && $(CURDIR)/$(RUN) -m mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache r1ranker_ir

wheel: $(TEST_STAMP)
	@$(RUN) -m build --no-isolation

clean:
	@rm -rf $(VENV) $(LATEST) build dist site .cache *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
