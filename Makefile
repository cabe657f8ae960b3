# The front door. Needs make and Python 3.11, 3.12 or 3.13 with venv; everything else goes into .venv.
#
#   make demo    start a cloud in a temporary folder, run the sample on it, stop it
#   make demo-tool deploy an app with packages twice, run it both ways, go back
#   make up      run a cloud in the foreground
#   make test    the whole test suite; STRICT=1 makes a skipped test a failure
#   make check   formatting, lint, types, import contracts, declared dependencies
#   make chaos   kill what runs, again and again, and check that no job was lost
#   make fuzz    feed random bytes to everything that reads what others wrote
#   make mutants plant faults and see whether the tests find them
#   make docs    build the site of the documentation

PYTHON ?=
BIN := .venv/bin
READY := .venv/.ready
TEST_ARGS ?=
PROCESSES ?= 3
ONLY ?=
TARGETS ?=
MANIFESTS := pyproject.toml uv.lock $(wildcard packages/*/pyproject.toml)
BENCHMARKS ?= $(filter-out benchmarks/_%,$(sort $(wildcard benchmarks/*.py)))

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-tool up test check format bench chaos chaos-planted fuzz guarantees mutants docs wheels system-packages clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

$(READY): $(MANIFESTS) tools/setup
	@echo "setting up .venv"
	@tools/setup "$(PYTHON)"

setup: $(READY) ## make .venv with the locked packages

demo: $(READY) ## start a cloud in a temporary folder, run the sample on it, stop it
	@$(BIN)/python -m apothic_server.demo

demo-tool: $(READY) ## deploy an app with packages twice, run it both ways, go back, compare versions
	@$(BIN)/python tools/demo_tool.py

up: $(READY) ## run a cloud in the foreground; Ctrl-C stops it
	@$(BIN)/apothic up $(UP_ARGS)

# Many tests wait for processes of their own, so three share two processors. Tests of one file stay together.
test: $(READY) ## run the whole test suite (TEST_ARGS="-k words", STRICT=1, PROCESSES=0 for one process)
	@$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(if $(filter 1,$(STRICT)),--strict-skips) $(TEST_ARGS)

check: $(READY) ## formatting, lint, types, import contracts, declared dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python tools/check_dependencies.py

format: $(READY) ## format the code and sort the imports
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .

# A run that breaks leaves no result, and the others go on.
bench: $(READY) ## run every benchmark against its peers, and print all goals in one table
	@tools/system-packages bench
	@rm -rf .bench/results
	@broken=; for file in $(BENCHMARKS); do $(BIN)/python $$file || broken="$$broken $$file"; done; \
		$(BIN)/python benchmarks/_table.py; \
		[ -z "$$broken" ] || { echo "broken:$$broken" >&2; exit 1; }

chaos: $(READY) ## break a running cloud on purpose, at most an hour (SHARD=a, b, c, s or maps, SEED=number, PLANT=bug)
	@$(BIN)/python -m tests.chaos $(or $(SHARD),a) $(if $(SEED),--seed $(SEED)) $(if $(PLANT),--plant "$(PLANT)")

chaos-planted: $(READY) ## plant known bugs into a running cloud and see whether it turns red
	@$(BIN)/python -m tests.chaos planted

# Atheris is no part of .venv otherwise. Where it cannot be had, the targets run with the mutator of the test suite.
fuzz: $(READY) ## feed random bytes to what reads those of others (FUZZ_RUNS=2000000, TARGETS="archive cron")
	@UV_SYSTEM_CERTS=1 UV_PROJECT_ENVIRONMENT=.venv UV_PYTHON_DOWNLOADS=never $(BIN)/uv sync --frozen --inexact --quiet --only-group fuzz || true
	@$(BIN)/python -m tests.fuzz $(TARGETS)

guarantees: $(READY) ## print the state of every promise in docs/guarantees.md
	@$(BIN)/python -m apothic_server.testing.guarantees

mutants: $(READY) ## plant faults and see whether the tests find them (ONLY=words)
	@$(BIN)/python tools/mutants.py --only "$(ONLY)" --write docs/mutants.md

docs: $(READY) ## build the site of the documentation into .site/html
	@$(BIN)/python tools/docs.py

wheels: $(READY) ## build the three wheels into dist/
	@for package in client worker server; do \
		(cd packages/$$package && $(CURDIR)/$(BIN)/python -m hatchling build -t wheel -d ../../dist) || exit 1; \
	done

system-packages: ## install what the tests use beside Python and make (Debian, root)
	@tools/system-packages

clean: ## remove .venv and everything that was built or cached
	rm -rf .venv .bench .site dist build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
