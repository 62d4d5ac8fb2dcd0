# `make serve` and `make test` work in a fresh clone on Debian 12 with git, make and Python 3.11: they make .venv once.
# The system packages that are missing are installed with apt-get, as root or through sudo.

PYTHON ?= python3
# Processes that run tests at once, one more than there are cores, since many tests wait; 0: one after the other, in sight.
TEST_JOBS ?= $(shell echo $$(($$(nproc) + 1)))
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore $(BIN)/python -m pip -qq
DEV    := $(VENV)/.installed-dev
BENCH  := $(VENV)/.installed-bench
PEERS  := .peers/.installed
SITE   := $(VENV)/.installed-docs
CYTHON := $(VENV)/.installed-compiled
TYPED  := .typecheck
BUILT  := .compiled

.PHONY: help serve test test-tools compiled test-compiled proof lint format bench bench-peers bench-growth bench-sql bench-calls bench-keys bench-direct bench-scaling bench-ws bench-overload load load-web bench-latency profile docs docs-serve clean

help:
	@echo "make serve    the account example on 127.0.0.1:8000"
	@echo "make test     the tests; TEST_JOBS=0 runs them one after the other, PYTEST_FLAGS='-x tests/system' what you like"
	@echo "make test-tools  installs what tests skip without: PostgreSQL, wrk, redis-tools, promtool, pyright, ..."
	@echo "make compiled  the server compiled by Cython, in .compiled: PYTHONPATH=.compiled .venv/bin/actord serve ..."
	@echo "make test-compiled  those tests of it that are about what is compiled"
	@echo "make proof    the faults at length: power cuts, I/O errors, kills; PROOF_SECONDS=1800 PROOF_SEED= PROOF_FLAGS="
	@echo "make lint     style and types"
	@echo "make format   put the source into its style"
	@echo "make bench    durable calls a second, beside other systems (installs wrk and PostgreSQL)"
	@echo "make bench-peers  the same beside Redis, PostgreSQL, workerd and Restate too, with a table and a plot (installs them)"
	@echo "make bench-growth what a call costs as names, values, keys, the database and its log grow, with plots"
	@echo "make bench-keys   what an idempotency key costs, beside the same call without"
	@echo "make bench-ws     messages through rooms of WebSockets, beside FastAPI with state in memory"
	@echo "make bench-latency  one durable call on an idle server, beside one fdatasync"
	@echo "make profile  where the CPU of a durable call goes"
	@echo "make bench-direct   calls through the front beside calls of the workers themselves"
	@echo "make bench-scaling  CPU of a call by role with 1 and 2 workers and fronts, and what follows for more cores"
	@echo "make bench-sql    durable SQL inserts, beside PostgreSQL and beside one SQLite file for each actor"
	@echo "make bench-overload  goodput, refusals and latency at 50 to 200 % of what the server can carry"
	@echo "make bench-calls  what a call from one actor to another costs, in one worker and between two"
	@echo "make load     a load test with locust, with thresholds and an audit; LOAD_FLAGS='--scenario hot --seconds 60'"
	@echo "make load-web the same, steered from locust's page on 127.0.0.1:8089"
	@echo "make docs     the documentation as a site, in site/; warnings and links that lead nowhere are errors"
	@echo "make docs-serve  the same on 127.0.0.1:8001, built again when a page changes"
	@echo "make clean    remove what these commands made, but no data"

serve: $(DEV)
	@$(BIN)/actord serve examples/account.py

# Some tests need more than Python; where it is missing and can't be had they skip, and say so.
test: $(DEV)
	@.ci/apt --optional strace=strace curl=curl faketime=faketime systemd-analyze=systemd
	@.ci/apt --optional chromium=chromium chromedriver=chromium-driver
	@$(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile $(PYTEST_FLAGS)

# Everything else that a test can make use of: with it none skips for want of a package. ``.ci/run`` asks for it first.
# Pyright brings its own program through npm when it first runs: here, and not in the middle of a test.
test-tools: $(BENCH) $(SITE)
	@for wish in wrk=wrk pg_ctlcluster=postgresql redis-benchmark=redis-tools ip=iproute2 openssl=openssl \
		unshare=util-linux promtool=prometheus npm=npm; do .ci/apt --optional $$wish; done
	@$(PIP) install pyright && $(BIN)/pyright --version >/dev/null || echo "without pyright: what needs it will skip" >&2

# A tree that runs: links to the sources, and beside them what setup.py makes of those with a .pxd; only what has changed.
compiled: $(DEV) $(CYTHON)
	@.ci/apt gcc=gcc
	@$(BIN)/python -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
		|| .ci/apt =python3-dev
	@echo "compiling what has changed into $(BUILT) ..." >&2
	@ACTORD_COMPILE=1 $(BIN)/python setup.py -q build_ext --build-lib $(BUILT) --links

# All that is about a worker, and of the whole servers what goes through everything that is compiled and waits for little.
COMPILED_TESTS := tests/shards \
	$(patsubst %,tests/server/test_%.py,access corpus curl deadlines front heads_keys http refusals routes slotmap tls \
		websocket_conformance websocket_handshake websocket_limits websocket_worker_loss worker_loss) \
	$(patsubst %,tests/system/test_%.py,account_example asgi calls_between_workers events front_door http_errors \
		idempotency metrics model names outbox reload_direct sql streams uploads websocket websocket_kills worker_death)

test-compiled: compiled
	@PYTHONPATH=$(CURDIR)/$(BUILT) $(BIN)/actord --version | grep compiled
	@PYTHONPATH=$(CURDIR)/$(BUILT) $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile $(PYTEST_FLAGS) $(COMPILED_TESTS)

# Needs root for its real file systems; what can't be had is skipped, and the report says so.
proof: $(DEV)
	@.ci/apt --optional strace=strace mkfs.ext4=e2fsprogs
	@$(BIN)/python -m tests.proof $(PROOF_FLAGS)

# Types are checked of the benchmark too, and with what it imports.
lint: $(BENCH)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@rm -rf $(TYPED) && mkdir -p $(TYPED)/actord
	@for entry in sdk/*; do ln -s "../../$$entry" $(TYPED)/actord/; done
	@for folder in configs loadtest server shards storage; do ln -s "../../$$folder" $(TYPED)/actord/; done
	@cd $(TYPED) && MYPYPATH=. ../$(BIN)/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache --strict -p actord

format: $(DEV)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(BENCH)
	@.ci/apt wrk=wrk pg_ctlcluster=postgresql
	@$(BIN)/python -m actord.loadtest.bench $(BENCH_FLAGS)

# What can't be had is left out, and the results say so.
bench-peers: $(BENCH) $(PEERS)
	@.ci/apt wrk=wrk pg_ctlcluster=postgresql
	@.ci/apt --optional strace=strace ip=iproute2 redis-benchmark=redis-tools
	@$(BIN)/python -m actord.loadtest.bench_peers $(BENCH_FLAGS)

bench-growth: $(BENCH)
	@.ci/apt wrk=wrk
	@$(BIN)/python -m actord.loadtest.growth $(BENCH_FLAGS)

bench-sql: $(BENCH)
	@.ci/apt wrk=wrk pg_ctlcluster=postgresql
	@$(BIN)/python -m actord.loadtest.bench_sql $(BENCH_FLAGS)

bench-calls: $(DEV)
	@.ci/apt wrk=wrk
	@$(BIN)/python -m actord.loadtest.bench_calls $(BENCH_FLAGS)

bench-ws: $(BENCH)
	@$(BIN)/python -m actord.loadtest.bench_ws $(BENCH_FLAGS)

bench-latency: $(BENCH)
	@$(BIN)/python -m actord.loadtest.bench_latency $(BENCH_FLAGS)

profile: $(BENCH)
	@.ci/apt wrk=wrk
	@$(BIN)/python -m actord.loadtest.profile $(BENCH_FLAGS)

bench-direct: $(BENCH)
	@.ci/apt wrk=wrk
	@$(BIN)/python -m actord.loadtest.bench_direct $(BENCH_FLAGS)

bench-scaling: $(BENCH)
	@.ci/apt wrk=wrk
	@$(BIN)/python -m actord.loadtest.scaling $(BENCH_FLAGS)

bench-keys: $(BENCH)
	@.ci/apt wrk=wrk
	@$(BIN)/python -m actord.loadtest.bench_keys $(BENCH_FLAGS)

# The server has all cores but the last; the generator of the open loop has that one.
bench-overload: $(BENCH)
	@.ci/apt wrk=wrk
	@$(BIN)/python -m actord.loadtest.bench_overload $(BENCH_FLAGS)

# Without a server of your own (LOAD_FLAGS=--host=URL) it starts one on 127.0.0.1, with a new data directory.
load: $(BENCH)
	@$(BIN)/python -m actord.loadtest.load $(LOAD_FLAGS)

load-web: $(BENCH)
	@$(BIN)/python -m actord.loadtest.load --web $(LOAD_FLAGS)

# Nothing is fetched, neither by the build nor by the pages. The theme's news about itself are left out.
docs: $(SITE)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "the site is in site/: open site/index.html, or serve that folder" >&2

docs-serve: $(SITE)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:8001

clean:
	@rm -rf $(VENV) $(TYPED) $(BUILT) site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "actord needs Python 3.11 or newer, and $(PYTHON) is none: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || .ci/apt =python3-venv
	@echo "making $(VENV) ..." >&2
	@$(PYTHON) -m venv $(VENV)

$(DEV): pyproject.toml | $(VENV)/bin/python
	@echo "installing actord and what it needs into $(VENV) ..." >&2
	@$(PIP) install -e '.[dev,client,browser]'
	@touch $@

$(BENCH): pyproject.toml $(DEV)
	@echo "installing what the benchmark needs into $(VENV) ..." >&2
	@$(PIP) install -e '.[dev,client,browser,bench]'
	@touch $@

$(CYTHON): pyproject.toml $(DEV)
	@echo "installing Cython into $(VENV) ..." >&2
	@$(PIP) install -e '.[compiled]'
	@touch $@

$(SITE): pyproject.toml | $(VENV)/bin/python
	@echo "installing what the site needs into $(VENV) ..." >&2
	@$(PIP) install -e '.[docs]'
	@touch $@

# No script of a package runs. Without npm, or the registry, the peers that come from it are left out.
$(PEERS): loadtest/peers/package.json
	@.ci/apt --optional npm=npm
	@mkdir -p .peers && cp loadtest/peers/package.json .peers/
	@echo "installing the peers that come from npm into .peers ..." >&2
	@npm install --prefix .peers --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel=error >&2 && \
		touch $@ || echo "npm could not install them: they will be left out" >&2
