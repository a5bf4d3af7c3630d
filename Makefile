# Every target sets up what it needs in .venv, on any machine with Python 3.11 or newer. CONTRIBUTING.md describes them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo programs test quick audit fuzz container-check lint format schema docs site bench arena clean

demo: $(VENV)/.ready
	$(BIN)/anyrec demo

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --durations=25 --durations-min=1

# Chromium, and PostgreSQL with pgvector, which some tests start, by apt-get as root. Without them these are skipped.
programs:
	scripts/install_programs.sh

# All tests but those that are marked slow: more than 5 seconds each, those with random input, and the audit.
quick: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow"

# The promised features, one test for each row (A1 to E10), through the commands and Python, on real and generated data.
audit: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -v tests/audit

# Hostile input of every kind: N examples of each test with fresh seeds (make fuzz N=100000).
N ?= 1000
fuzz: $(VENV)/.ready-test
	FUZZ_N=$(N) $(BIN)/python -m pytest -n auto --maxprocesses 4 tests/fuzz

# The steps of the Dockerfile without a container engine, and the server that the image starts. As root on Linux; 3 GB
# of torch are downloaded unless its CPU builds can be reached (BUILD='--build-arg TORCH_INDEX=...').
BUILD ?=
container-check: $(VENV)/.ready
	$(BIN)/python scripts/check_container.py $(BUILD)

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python scripts/check_words.py

format: $(VENV)/.ready-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(VENV)/.ready
	ANYREC_NO_PLUGINS=1 $(BIN)/anyrec schema config > schemas/config.schema.json

# The generated parts of docs/: config, components, commands, metrics, error messages, rule examples.
docs: $(VENV)/.ready-test
	$(BIN)/python scripts/generate_docs.py
	$(BIN)/python scripts/rules_examples.py

# The documentation as a site in site/, without network once the packages are installed; a broken link fails.
site: $(VENV)/.ready-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.ready-bench
	$(BIN)/python benchmarks/read.py
	$(BIN)/python benchmarks/correlated.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/text_vectors.py
	$(BIN)/python benchmarks/p1.py --data ml-100k
	$(BIN)/python benchmarks/p1.py --data ml-1m
	$(BIN)/python benchmarks/baselines.py --data ml-100k
	$(BIN)/python benchmarks/baselines.py --data ml-1m
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/evaluation.py --simulate
	$(BIN)/python benchmarks/p1.py --data ml-100k --config configs/ml-100k-sequence.json --final
	$(BIN)/python benchmarks/p1.py --data ml-1m --config configs/ml-1m-sequence.json --final
	$(BIN)/python benchmarks/p1.py --data ml-1m --config configs/ml-1m-everything.json --final
	$(BIN)/python benchmarks/ablation.py --data ml-100k
	$(BIN)/python benchmarks/sequence.py --data ml-1m --compare-plain
	$(BIN)/python benchmarks/cold.py --protocol cold-items --data ml-1m
	$(BIN)/python benchmarks/cold.py --protocol cold-users --data ml-1m
	$(BIN)/python benchmarks/rankers.py
	$(BIN)/python benchmarks/indexes.py
	$(BIN)/python benchmarks/pipeline.py --data ml-1m

# The default config against tuned classical models, on all data under all protocols: hours. `make arena ARGS=--quick`
# takes minutes and writes no page.
ARGS ?= --report
arena: $(VENV)/.ready
	$(BIN)/python benchmarks/arena.py $(ARGS)

$(VENV)/.ready: setup.cfg constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit("anyrec needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[baselines]'
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,docs]'
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt annoy \
		|| echo "annoy was not built (it needs a C++ compiler and Python's headers): its tests are skipped."
	@touch $@

$(VENV)/.ready-bench: $(VENV)/.ready-test
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

clean:
	rm -rf build dist site *.egg-info demo models .pytest_cache .ruff_cache .hypothesis
