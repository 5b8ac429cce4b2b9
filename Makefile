# Two commands: `make quickstart` and `make test`. Each takes a fresh clone to its result; .venv is made on
# the way.
# PYTHON picks the interpreter (3.11 or newer), EXTRAS adds optional parts: make setup EXTRAS=tpu,parity
PYTHON ?= python3
EXTRAS ?=
BIN := .venv/bin
comma := ,
STAMP := .venv/.installed$(if $(EXTRAS),-$(subst $(comma),-,$(EXTRAS)))
PYTEST := $(BIN)/python -m pytest

# xpk and SkyPilot, by whose own parsers tests check what `bltjax launch` prints. Their pins conflict with ours
# and one another's: an environment each, outside of the checkout.
LAUNCH_TOOLS ?= $(or $(BLTJAX_LAUNCH_TOOLS),$(HOME)/.cache/bltjax/launch-tools)

.PHONY: launch-tools setup quickstart test test-fast test-slow setup-newest test-newest test-newest-core clean

setup: $(STAMP)

$(STAMP): setup.cfg pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) \
		and "bltjax needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock \
		-e '.[test$(if $(EXTRAS),$(comma)$(EXTRAS))]'
	touch $@

quickstart: setup
	$(BIN)/bltjax run quickstart
	$(BIN)/bltjax report quickstart

# All in one session, whose tests share what is compiled; the slowest are named at its end.
test: setup
	$(PYTEST) -n 2 -m "slow or not slow" --durations=40 --durations-min=20

test-fast: setup
	$(PYTEST) -n 2

test-slow: setup
	$(PYTEST) -n 2 -m slow

# The fast tests on the newest releases that setup.cfg allows: make test-newest PYTHON=python3.12
# Which those are, requirements-newest.lock says, so that a release of today breaks nothing here by itself. To
# take newer ones: empty it, run this, and fill it by pip freeze, without bltjax itself.
setup-newest: .venv-newest/.installed

.venv-newest/.installed: setup.cfg pyproject.toml requirements-newest.lock
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check -c requirements-newest.lock \
		-e '.[test]'
	touch $@

test-newest: setup-newest
	.venv-newest/bin/python -m pytest -n 2

# Of these, what stands on JAX, Flax, numpy and the other libraries: models, training, checkpoints, fits. The
# newest XLA compiles more slowly, so that all of them would take as long again as `make test`.
NEWEST := golden_models llama attention accelerator_attention causality hashing patching patcher models \
	checkpoint resume training warm_start flops flops_of_programs entropies windows likelihood fits \
	approaches joint_law lbfgs intervals packing rows records tokenizers model_commands packaging run_directories

test-newest-core: setup-newest
	.venv-newest/bin/python -m pytest -n 2 $(NEWEST:%=tests/test_%.py)

launch-tools: $(LAUNCH_TOOLS)/xpk/.installed $(LAUNCH_TOOLS)/skypilot/.installed

$(LAUNCH_TOOLS)/xpk/.installed: TOOL := xpk==1.16.0
$(LAUNCH_TOOLS)/skypilot/.installed: TOOL := skypilot==0.14.0
$(LAUNCH_TOOLS)/%/.installed:
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(TOOL)
	touch $@

clean:
	rm -rf build dist *.egg-info .pytest_cache
