# The README's two commands, and what keeps them working.
PYTHON ?= python3.11
# Two stacks: io is TensorFlow 2.16 with tensorflow-io, for Python 3.11 and 3.12; latest is today's TensorFlow
STACK ?= $(shell $(PYTHON) -c 'import sys; print("io" if sys.version_info < (3, 13) else "latest")')
ifeq ($(STACK),latest)
VENV ?= .venv-latest
LOCK := requirements-latest.lock
EXTRAS := speech,dev
else
VENV ?= .venv
LOCK := requirements.lock
EXTRAS := io,speech,dev
endif
ARGS ?=

.PHONY: train test install lock lint docs

train: install ## train on the built-in synthetic data; make train ARGS="dataset=… model=…"
	$(VENV)/bin/python train.py $(ARGS)

# several test files at once; what stands in one file shares what it trains; in order, so that the fast ones come last
test: install ## run all tests, the slow ones included; make test ARGS='-m "not slow"' leaves them out
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: install
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports

docs: install ## build the manual into site/, with its links checked, and serve it; another port than 8000: ARGS=8001
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict
	$(VENV)/bin/python -m http.server --bind 127.0.0.1 --directory site $(ARGS)

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml $(LOCK)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the project into $(VENV): 2 to 5 minutes"
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(LOCK) -e '.[$(EXTRAS)]'
	touch $@

lock: ## pin anew what pyproject.toml admits; needs uv
	$(call pin,--extra io,requirements.lock)
	$(call pin,,requirements-latest.lock)

# of the markers, only those stay that divide the Pythons
define pin
uv pip compile -q --universal --python-version 3.11 $(1) --extra speech --extra microphone --extra dev --no-annotate \
	--no-emit-index-url --custom-compile-command "make lock" pyproject.toml -o $(2)
sed -i.bak -E "s/ and \(\(platform.*//; s/ ; python_full_version < '3.14'$$//" $(2) && rm $(2).bak
endef
