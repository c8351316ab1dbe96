# Everything one does with a clone. `make` alone lists it; `make check` is most of what CI runs.
#
# Stamps keep the virtual environment up to date: `.venv/.demo` has what the worker needs (quick to install), `.venv/.dev`
# what tests and checks need on top, `.venv/.prove` what the tests against other programs need. `.venv/.sdks` stands for a
# second environment, `.venv/sdks`, with SDKs of providers, and `.venv/.node` for packages of Node in `.venv/node`. Each is
# redone when a lock or a pyproject.toml changes.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv demo run test test-all coverage prove sabotage mutate chaos producers archivers taps hostile bench release check lint format format-check types imports schemas lock clean

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal
ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start hundreds of processes; each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

bold := $(shell test -t 2 && printf '\033[1m')
reset := $(shell test -t 2 && printf '\033[0m')
say = @printf '$(bold)%s$(reset)\n' '$(1)'

help: ## List what can be made
	@printf '%s\n\n' 'deltaloom: texts and moderation alerts from streams of model-output deltas.'
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  $(bold)make %-13s$(reset) %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n%s\n' 'Variables:'
	@printf '  %-38s %s\n' \
		'PYTHON=/path/to/python' 'the Python to make .venv with (3.11 to 3.14)' \
		'REDIS_URL=redis://host:6379 make run' 'work on that server, not on an embedded one' \
		'DELTALOOM_TEST_SERVER=NAME make test' 'docker, embedded, /path/to/server or redis://… (default: docker where it answers)' \
		'RECORDINGS=folder make test' 'replay recorded streams too (*.jsonl)' \
		'ARGS="-k alerts" make test' 'more arguments for the command behind demo, run, test…, prove, chaos, producers, archivers, taps, hostile and bench' \
		'UPGRADE=1 make lock' 'take the newest allowed versions, not the locked ones'

demo: $(VENV)/.demo ## See it work: a server, a worker, a relay and eleven streams, in about 15 seconds
	@$(BIN)/python -m demo $(ARGS)

run: $(VENV)/.demo ## Run a worker and the console here, on REDIS_URL or a server that keeps its data in .deltaloom/
	@$(BIN)/deltaloom run --console $(ARGS)

test: $(VENV)/.dev ## Run the most important tests, in four to eight minutes on two cores
	$(call say,test: pytest)
	@$(PYTEST) -m 'not slow and not prove' $(ARGS)

test-all: $(VENV)/.dev ## Run all tests, with the slow ones, but without those of prove, in 10 to 20 minutes on two cores
	$(call say,test-all: pytest)
	@$(PYTEST) -m 'not prove' --hypothesis-profile ci $(ARGS)

coverage: $(VENV)/.dev ## Run the tests of make test and measure which branches of the code they take, in 8 to 17 minutes
	$(call say,coverage: pytest)
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest --numprocesses auto --dist worksteal -m 'not slow and not prove' $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

prove: $(VENV)/.prove $(VENV)/.sdks $(VENV)/.node ## Run the tests against other programs, such as SDKs and a browser, in 3 to 8 minutes (needs Node with npm, Go, jq, Chromium)
	$(call say,prove: pytest)
	@$(PYTEST) -m prove --hypothesis-profile ci $(ARGS)

sabotage: $(VENV)/.dev ## Break the code in fixed ways and see whether each turns the tests red, in four to nine minutes
	@$(BIN)/python -m mutation sabotage $(ARGS)

mutate: $(VENV)/.dev ## Make 100 random changes each in Python and Lua and see whether the tests notice, in some hours
	@$(BIN)/python -m mutation sample $(ARGS)

chaos: $(VENV)/.dev ## Kill and disturb workers and server for two minutes: is anything lost, wrong or doubled?
	@$(BIN)/python -m chaos $(ARGS)

producers: $(VENV)/.dev ## Kill and disturb producers and their server for a minute: are all losses reported?
	@$(BIN)/python -m chaos.producers $(ARGS)

archivers: $(VENV)/.prove ## Kill archivers, PostgreSQL and Redis for two minutes: does the archive have everything once?
	@$(BIN)/python -m chaos.archivers $(ARGS)

taps: $(VENV)/.dev ## Kill and disturb taps and their server for a minute: do clients notice, are all losses in the books?
	@$(BIN)/python -m chaos.taps $(ARGS)

hostile: $(VENV)/.dev ## Send hostile input next to honest load for a minute: does it cost more than itself?
	@$(BIN)/python -m hostile $(ARGS)

bench: $(VENV)/.dev ## Measure the worker next to hand-written ones, in about an hour
	@$(BIN)/python -m bench $(ARGS)

release: $(VENV)/.dev ## Build the files of a release in dist/, and its image (ARGS=--dry-run: the files of any commit)
	@$(BIN)/python -m release $(ARGS)

check: lint format-check types imports test ## Lint, format, types, imports, tests

lint: $(VENV)/.dev ## Look for mistakes (ruff, all rules) and for unclear words and names (checks/)
	$(call say,lint: ruff check)
	@$(BIN)/ruff check --quiet .
	$(call say,lint: python -m checks)
	@$(BIN)/python -m checks $(if $(COMMITS),--commits $(COMMITS))

format: $(VENV)/.dev ## Put the code into its format, and repair what ruff can repair
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

format-check: $(VENV)/.dev ## Is the code in its format? (ruff format)
	$(call say,format: ruff format --check)
	@$(BIN)/ruff format --quiet --check . || { echo 'Not formatted; "make format" does it:'; $(BIN)/ruff format --check .; exit 1; }

types: $(VENV)/.dev ## Check the types (mypy, strict)
	$(call say,types: mypy --strict)
	@$(BIN)/mypy --no-error-summary

imports: $(VENV)/.dev ## Check who imports whom (import-linter; the contracts are in pyproject.toml)
	$(call say,imports: lint-imports)
	@$(BIN)/lint-imports --no-logo >$(VENV)/.imports.log 2>&1 || { cat $(VENV)/.imports.log; exit 1; }

venv: $(VENV)/.dev ## Make .venv with all that development needs, and the project itself (editable)

schemas: $(VENV)/.dev ## Write the JSON Schemas and asyncapi.json in client/deltaloom/ anew, from the models
	@$(BIN)/python -m tests.client.schemas
	@$(BIN)/python -m tests.client.asyncapi

lock: $(VENV)/.dev ## Write locks/ anew, with hashes and without index addresses (needs npm)
	$(call say,lock: uv pip compile)
	@$(COMPILE) --output-file locks/runtime.txt
	@$(COMPILE) --output-file locks/demo.txt --constraint locks/runtime.txt --group embedded --group build
	@$(COMPILE) --output-file locks/dev.txt --constraint locks/demo.txt $(EXTRAS) --group embedded --group dev
	@$(COMPILE) --output-file locks/prove.txt --constraint locks/dev.txt $(EXTRAS) --group embedded --group prove
	@$(COMPILE) --output-file locks/otel.txt --constraint locks/dev.txt --extra otel
	@$(COMPILE) --output-file locks/tap.txt --constraint locks/dev.txt --extra tap
	@$(COMPILE) --output-file locks/archive.txt --constraint locks/dev.txt --extra archive
	@$(COMPILE) --output-file locks/console.txt --constraint locks/dev.txt --extra console
	@$(COMPILE_FILE) --group sdks --output-file locks/sdks.txt
	@$(COMPILE_FILE) .ci/requirements.in --output-file .ci/requirements.txt
	@npm $(if $(UPGRADE),update,install) --prefix locks/node $(NPM_LOCK)

COMPILE_FILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --annotation-style line --custom-compile-command 'make lock' \
	$(if $(UPGRADE),--upgrade)
NPM_LOCK = --package-lock-only --omit-lockfile-registry-resolved --no-audit --no-fund --silent
EXTRAS = --extra archive --extra console --extra otel --extra tap
COMPILE = $(COMPILE_FILE) --no-emit-package deltaloom pyproject.toml

clean: ## Remove .venv, caches and build results (not the data in .deltaloom/)
	@rm -rf $(VENV) build dist client/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find archive bench chaos checks client console demo embedded examples handlers hostile mutation release service tap tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ------------------------------------------------------------------------------------------ the virtual environment

$(VENV)/.demo: locks/demo.txt pyproject.toml client/pyproject.toml
	@test -x $(BIN)/pip || { $(MAKE_VENV); } # pip comes last, so this also mends a .venv that was interrupted
	$(call say,· installing what the worker needs (locks/demo.txt))
	@$(BIN)/python -m pip install -qq --require-hashes -r locks/demo.txt
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation -e client -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.demo locks/dev.txt
	$(call say,· installing what tests and checks need (locks/dev.txt))
	@$(BIN)/python -m pip install -qq --require-hashes -r locks/dev.txt
	@touch $@

$(VENV)/.prove: $(VENV)/.dev locks/prove.txt
	$(call say,· installing what the tests against other programs need (locks/prove.txt))
	@$(BIN)/python -m pip install -qq --require-hashes -r locks/prove.txt
	@touch $@

$(VENV)/.sdks: $(VENV)/.dev locks/sdks.txt
	$(call say,· installing the SDKs whose streams are copied (locks/sdks.txt))
	@$(BIN)/python -m venv --clear $(VENV)/sdks
	@$(VENV)/sdks/bin/python -m pip install -qq --require-hashes -r locks/sdks.txt
	@touch $@

# Without npm, the tests that need it are skipped.
$(VENV)/.node: $(VENV)/.demo locks/node/package.json locks/node/package-lock.json
	$(call say,· installing packages of Node (locks/node))
	@mkdir -p $(VENV)/node && cp locks/node/*.json $(VENV)/node
	@! command -v npm >/dev/null || { npm ci --prefix $(VENV)/node --ignore-scripts --no-audit --no-fund --silent && touch $@; }

PYTHONS := python3 python3.14 python3.13 python3.12 python3.11

define MAKE_VENV
python=$$( \
	if [ -n "$(PYTHON)" ]; then \
		"$(PYTHON)" -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))" 2>/dev/null && echo "$(PYTHON)"; \
	else \
		for p in $(PYTHONS); do \
			"$$p" -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))" 2>/dev/null && echo "$$p" && break; \
		done; \
	fi \
); \
if [ -z "$$python" ]; then \
	echo "No Python 3.11 to 3.14 found (looked for: $(or $(PYTHON),$(PYTHONS)))." >&2; \
	echo "Install one, or name one: make PYTHON=/path/to/python …" >&2; \
	exit 1; \
fi; \
printf '$(bold)%s$(reset)\n' "· making $(VENV) with $$("$$python" --version)"; \
"$$python" -m venv --clear $(VENV) || { \
	echo "$$python cannot make a virtual environment; on Debian and Ubuntu the package python3-venv is missing." >&2; \
	rm -rf $(VENV); exit 1; \
}
endef
