# Everything happens in .venv; nothing outside this folder is changed. pip uses the machine's own configuration.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test check boot deb manual bench crash outage fuzz clean

# Sets everything up and starts everything. Without POSTMARK_SERVER_TOKEN the mail goes to a stand-in
# for Postmark on this machine, so that it can be tried without an account.
run: $(VENV)/.for-running
	@if [ -n "$$POSTMARK_SERVER_TOKEN" ]; then exec $(BIN)/franker run; \
	else exec $(BIN)/franker run --sandbox; fi

# Tests never see a token, so that none can ever send real mail. A file's tests stay together: some
# share processes. One file alone: make test TESTS=tests/test_routing.py
test: $(VENV)/.for-working
	env -u POSTMARK_SERVER_TOKEN $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(TESTS)

check: $(VENV)/.for-working
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Boots a Debian and installs Franker on it as its users do; for root, with debootstrap and
# systemd-container. Others: make boot SUITE=trixie (or noble); a part: make boot BOOT=tests/boot/test_package.py
SUITE ?= bookworm
BOOT ?= tests/boot
boot: $(VENV)/.for-working
	BOOT_SUITE=$(SUITE) $(BIN)/python -m pytest -m boot --numprocesses 2 --dist loadfile $(BOOT)

# dist/franker_VERSION_ARCH.deb, for the Debian or Ubuntu that this runs on, of this checkout or of a
# wheel: make deb WHEEL=...
deb:
	packaging/deb $(WHEEL)

# share/: the manual pages and the shells' completion, of what the program itself says.
manual: $(VENV)/.for-working
	$(BIN)/python -m manual

bench: $(VENV)/.for-working
	env -u POSTMARK_SERVER_TOKEN $(BIN)/python -m benchmarks $(BENCH)

# Kills and cuts everything at random, and accounts for every recipient. A failed round says how it
# is repeated: make crash ROUNDS=1 FIRST=17 SEED=... ; more options by CRASH, see --help.
ROUNDS ?= 10
FIRST ?= 1
crash: $(VENV)/.for-working
	env -u POSTMARK_SERVER_TOKEN $(BIN)/python -m tests.crash --rounds $(ROUNDS) --first $(FIRST) \
		$(if $(SEED),--seed $(SEED)) $(CRASH)

# The far end is down for so long, with so much mail waiting; prints how it went.
SECONDS ?= 600
MESSAGES ?= 20000
outage: $(VENV)/.for-working
	env -u POSTMARK_SERVER_TOKEN $(BIN)/python -m tests.crash.outage --seconds $(SECONDS) \
		--messages $(MESSAGES) $(OUTAGE)

# Gives every reader of foreign octets that many cases, and prints their number and the seed. atheris
# is needed here and nowhere else. One reader alone: make fuzz FUZZ='--engine chance fields'
CASES ?= 1000000
fuzz: $(VENV)/.for-working
	$(BIN)/python -m pip install --quiet 'atheris>=3,<4'
	env -u POSTMARK_SERVER_TOKEN nice -n 19 $(BIN)/python -m tests.fuzz --cases $(CASES) \
		$(if $(SEED),--seed $(SEED)) --engine both $(FUZZ)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The stamps make the second start quick: pip runs again only when pyproject.toml has changed.
$(VENV)/.for-running: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	touch $@

# Dependency groups need pip 25.1; Debian 12 brings 23.0.
$(VENV)/.for-working: pyproject.toml $(VENV)/.for-running
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[all]' --group dev
	touch $@
