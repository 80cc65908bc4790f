# Everything sets itself up in .venv; `make demo` and `make test` need no root. See README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/pytest --fail-on-skip
FAULT_ROUNDS ?= 10

.PHONY: demo test test-slow test-peers test-faults bench lint sizes clean

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "pacball needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY)  ## publish, serve, install, update and verify real releases
	$(BIN)/python deploy/demo.py --work .demo

test: $(READY)  ## all tests that need neither root nor other programs
	$(PYTEST) -n 4 -m "not peers and not root and not slow and not large"

test-slow: $(READY)  ## attacks on the catalog, backups beside publishers, every command of docs/trust.md; no root
	$(PYTEST) -n 4 -m "slow and not peers and not root"

test-peers: $(READY)  ## tests with real peers and file systems; needs root, installs what is missing
	tests/peers/install.sh
	$(PYTEST) -n 2 --dist loadfile tests/peers tests/fault -m "peers or root"

test-faults: $(READY)  ## the fault matrix, kills, power cuts, failing disks, over and over (FAULT_ROUNDS), and what is large; needs root
	tests/peers/install.sh
	$(PYTEST) -q tests/peers tests/e2e/test_repacked.py -m large
	for round in $$(seq $(FAULT_ROUNDS)); do \
	  echo "== round $$round of $(FAULT_ROUNDS)"; \
	  PACBALL_FAULT_ROUND=$$round $(PYTEST) -q -n 2 tests/fault/matrix -m large || exit 1; \
	  PACBALL_FAULT_ROUND=$$round $(PYTEST) -q tests/fault -m "not large" tests/e2e/test_interruptions.py tests/e2e/test_mirrors.py tests/peers/test_power_loss.py tests/peers/test_power_loss_air_gap.py \
	    tests/peers/test_failing_disks.py tests/peers/test_full_disks.py tests/peers/test_killed_installs.py \
	    tests/peers/test_failing_sites.py tests/peers/test_power_loss_sites.py tests/store/test_repack_races.py || exit 1; \
	done

bench: $(READY)  ## figures, against the real peers; needs root, and an idle machine
	benchmarks/install-peers.sh
	$(BIN)/python -m benchmarks

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

sizes: $(READY)
	$(BIN)/python tests/sizes.py

clean:
	rm -rf $(VENV) .demo
