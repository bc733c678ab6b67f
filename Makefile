# What people type. Nothing here needs root; `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
unexport PYTHONDONTWRITEBYTECODE # else sam, which has much to import, takes nearly three times the CPU to start
ARGS ?=
GO_MODULES := $(patsubst %/go.mod,%,$(wildcard src/go/*/go.mod scenarios/*/src/go/*/go.mod))
TEMPLATES := template.yaml $(wildcard scenarios/*/template.yaml)
FUNCTIONS := $(wildcard scenarios/*/src/python/*)

RATE ?= 10
DURATION ?= 60s
MESSAGES ?= 1000

TIMES ?= 20
FUZZTIME ?= 60s
FUZZED := $(addprefix tests/,local/test_differential.py unit/test_odd_lines.py unit/test_damaged_files.py unit/test_damaged_settings.py)

.PHONY: help setup check audit test fuzz chaos bench load load-headless screenshots load-screenshots build deploy destroy sam-local format clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-17s %s\n", $$1, $$2}' Makefile

setup: .venv/setup-done .lambdalab/tools/bin/ministack ## Put lambdalab and an isolated sam into .venv/bin

.venv/setup-done: pyproject.toml uv.lock tools/sam.txt tools/ministack.txt lambdalab/build/tools.py
	@$(PYTHON) -c 'import platform, sys; \
	sys.exit(0 if platform.system() == "Linux" and sys.version_info >= (3, 11) else \
	"lambdalab needs Linux (or WSL2) and Python 3.11 or newer, this is %s with Python %s; " \
	"run it in a Linux virtual machine, or set PYTHON=python3.12." \
	% (platform.system(), platform.python_version()))' || exit 3
	@test -x $(BIN)/uv || { echo "making .venv ..."; $(PYTHON) -m venv .venv && \
	$(BIN)/python -m pip --quiet --disable-pip-version-check install "$$(sed -n 's/^# uv: //p' tools/uv.txt)"; } || exit 3
	@echo "installing what uv.lock pins ..."
	@$(BIN)/uv sync --frozen --quiet || exit 3
	@echo "installing sam and MiniStack, isolated ..."
	@$(BIN)/python -m lambdalab.build.tools || exit 3
	@touch $@

.lambdalab/tools/bin/ministack: | .venv/setup-done # when only the tools were removed
	@echo "installing sam and MiniStack, isolated ..."
	@$(BIN)/python -m lambdalab.build.tools || exit 3

bench: setup ## Compare the Python and the Go function on this machine (ARGS are passed to `lambdalab run`)
	@$(BIN)/lambdalab run ingest --protocol strict --target local --up $(ARGS)

load: setup ## Open Locust's web UI on loopback, against the local stack with load settings (ARGS are passed to Locust)
	@$(BIN)/lambdalab load --up $(ARGS)

load-headless: setup ## Send RATE messages a second for DURATION without the web UI (RATE=50 DURATION=60s)
	@$(BIN)/lambdalab load --up --headless --only-summary --rate $(RATE) --duration $(DURATION) $(ARGS)

test: setup ## Run every test this machine can run, and name those it cannot
	$(BIN)/python tests/run.py $(ARGS)

fuzz: setup ## Draw many times as many odd inputs as make test (TIMES=20; of Go for FUZZTIME=60s each)
	LAMBDALAB_FUZZ=$(TIMES) $(BIN)/python -m pytest $(FUZZED) -s $(ARGS)
	cd src/go/ingest && export PATH="$$(../../../$(BIN)/python -m lambdalab.build.tools --go-folder):$$PATH" && \
	for target in FuzzParseMessage FuzzInvoke; do \
	go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) ./internal/ingest || exit 1; done

chaos: setup ## Kill, starve and refuse everything at random, and count every message (SEED=7 MESSAGES=1000)
	@PYTHONPATH=tests $(BIN)/python -m chaos --messages $(MESSAGES) $(if $(SEED),--seed $(SEED))

screenshots: setup ## Picture the newest run's report into docs/pictures (needs Chromium)
	$(BIN)/lambdalab report latest > /dev/null
	PYTHONPATH=tests $(BIN)/python -m browser.screenshots results/latest/report.html docs/pictures

load-screenshots: setup ## Picture Locust's form and the Pipeline page of a sweep into docs/pictures (needs Chromium)
	$(BIN)/lambdalab up --settings load --parameter MaximumConcurrency=2
	PYTHONPATH=tests $(BIN)/python -m browser.load_screenshots docs/pictures; code=$$?; $(BIN)/lambdalab down; exit $$code

check: setup audit ## Format, lint, types, import contracts, template, licences, Go vet and race tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	for folder in $(FUNCTIONS); do \
	MYPYPATH=$$folder $(BIN)/mypy --config-file= --cache-dir .mypy_cache/$$folder --strict $$folder || exit 1; done
	$(BIN)/lint-imports
	export PATH="$$($(BIN)/python -m lambdalab.build.tools --checkers-folder):$$PATH" && \
	cfn-lint --append-rules cfn_lint_serverless.rules --template $(TEMPLATES) && checkov --file $(TEMPLATES)
	export PATH="$$($(BIN)/python -m lambdalab.build.tools --go-folder):$$PATH" && for module in $(GO_MODULES); do (cd $$module && \
	test -z "$$(gofmt -l . | tee /dev/stderr)" && go vet -race ./... && go test -count=1 -vet=off -race ./...) || exit 1; done

audit: setup ## Hold the licences of all that is installed and linked against tools/licenses.toml, and the lock's hashes
	$(BIN)/python tools/audit.py

format: setup ## Format Python and Go
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	PATH="$$($(BIN)/python -m lambdalab.build.tools --go-folder):$$PATH" gofmt -w $(GO_MODULES) tests/local/go benchmarks/functions/go

build: setup ## sam build, for AWS
	$(BIN)/sam build

deploy: build ## sam build && sam deploy, to AWS
	$(BIN)/sam deploy

destroy: setup ## Delete the AWS stack, after showing what it owns and asking (ARGS="--stack-name lambdalab-load")
	@$(BIN)/lambdalab destroy $(ARGS)

sam-local: setup ## Run both functions in Docker with sam local, and compare with the local stack (ARGS: event files)
	@$(BIN)/lambdalab sam-local $(ARGS)

clean: ## Remove what was built and installed; results/ stays
	@test ! -e .lambdalab/stack.json || $(BIN)/lambdalab down
	rm -rf .venv .lambdalab .aws-sam scenarios/*/.aws-sam .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
