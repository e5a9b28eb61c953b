# make demo       installs, trains both agents from scratch, writes runs/demo/report.html
# make test       the quick tests        make test-full   the slow ones and those that need a browser, test-hf, test-plan
# make test-hf    models against transformers: installs torch (CPU) into a venv of its own
# make test-plan  compiles for TPUs and GPUs that are not here: installs their compilers into a venv of its own
# make bench      speed beside google-tunix and Hugging Face, in a venv of its own; bench-rollout, ... for one of them
# make lint       format and lint check  make clean       removes what make has made

# The demo counts its time from here, installation included.
RAO_START := $(shell date +%s)
export RAO_START

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
DEMO = $(VENV)/bin/python -m rao_jax.demo --out=runs/demo
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet --quiet --no-compile

# Two processes: compiling, which is most of it, uses one core. A file's tests stay together and share what they compile.
WORKERS = -n 2 --dist loadfile

BENCHMARKS = rollout update trees scaling prefix

.PHONY: demo test test-full test-hf test-plan bench bench-env $(BENCHMARKS:%=bench-%) lint lock clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(DEMO)

test: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest -q $(WORKERS) -m "not full and not hf and not plan" tests

test-full: $(VENV)/installed-dev test-hf test-plan
	RAO_FULL=1 $(VENV)/bin/python -m pytest -q $(WORKERS) -m "(full or registry) and not hf and not plan" tests

test-hf: $(VENV)/installed-hf
	$(VENV)-hf/bin/python -m pytest -q -m hf tests

test-plan: $(VENV)/installed-plan
	RAO_FULL=1 $(VENV)-plan/bin/python -m pytest -q -m plan tests

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

# The stamps are made last, so a broken install is begun again and a whole one is not repeated.
$(VENV)/installed: requirements.lock setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rao_jax needs Python 3.11 or newer, this is " \
	  + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11")'
	@echo "installing into $(VENV) (about a minute)"
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/installed-dev: requirements-dev.lock $(VENV)/installed
	$(PIP) -r requirements-dev.lock
	touch $@

bench-env: $(VENV)/installed-bench

# Two cores measure one thing at a time: these targets are never run side by side.
$(BENCHMARKS:%=bench-%): bench-%: $(VENV)/installed-bench
	@mkdir -p benchmarks/results
	JAX_PLATFORMS=cpu $(VENV)-bench/bin/python -m benchmarks.$* > benchmarks/results/$*.txt
	@tail -n 1 benchmarks/results/$*.txt > benchmarks/results/$*.json
	@cat benchmarks/results/$*.txt

bench: $(VENV)/installed-bench
	for one in $(BENCHMARKS); do $(MAKE) bench-$$one || exit 1; done

# torch, google-tunix, and the compilers of chips, stay out of $(VENV), whose packages these see.
$(VENV)/installed-hf $(VENV)/installed-plan $(VENV)/installed-bench: $(VENV)/installed-%: requirements-%.lock $(VENV)/installed-dev
	rm -rf $(VENV)-$*
	$(VENV)/bin/python -m venv $(VENV)-$*
	for own in $(VENV)-$*/lib/python*/site-packages; do \
	  echo "import site; site.addsitedir('$(abspath $(VENV))/lib/$$(basename $$(dirname $$own))/site-packages')" > $$own/base.pth; \
	done
	$(VENV)-$*/bin/python -m pip --disable-pip-version-check install --quiet --quiet --no-compile --no-deps \
	  -r requirements-$*.lock
	touch $@

# Newest versions that setup.py allows, which pip then takes by their hashes alone; the setuptools that builds the
# editable install is pinned too.
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --quiet . setuptools==80.10.2
	.venv-lock/bin/python -m pip freeze --all | grep -viE '^(pip==|rao-jax)' > .venv-lock/exact.in
	.venv-lock/bin/python -m pip install --quiet --quiet pip-tools
	{ echo "# Exact versions of a default install with the hashes of their files, Python 3.11. Made by make lock."; \
	  .venv-lock/bin/pip-compile --quiet --generate-hashes --no-annotate --no-header --allow-unsafe --strip-extras \
	    --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file=- .venv-lock/exact.in; \
	} > requirements.lock
	.venv-lock/bin/python docs/licences.py > docs/licences.md
	rm -rf .venv-lock

clean:
	rm -rf $(VENV) $(VENV)-hf $(VENV)-plan $(VENV)-bench .venv-lock build rao_jax.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
