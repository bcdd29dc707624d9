# make demo: every notebook on this machine's CPU or GPU, one report. make test: all checks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
comma := ,
# uv takes a minute where pip takes four, but reads no pip.conf; where it fails, pip tries. Without
# bytecode each process would compile what it imports, where Python may write none
define INSTALL
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	UV_FIND_LINKS="$${PIP_FIND_LINKS-$$($(BIN)/python -m pip config get global.find-links 2>/dev/null)}" \
		$(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python \
		--constraint constraints.txt --editable $(1) || \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable $(1)
endef
ifndef OUTPUT
OUTPUT := outputs/demo-$(shell date +%Y%m%d-%H%M%S)
endif

.PHONY: demo test test-real lint audit bench gpu-check endurance readme lab constraints clean

# code 3 is a machine so busy that no time counts: bytes and the T4's answer do, and the end says so
demo: $(VENV)/.base
	$(BIN)/python -m hybridlab.cli run params/pocket.yaml --output "$(OUTPUT)" || [ $$? -eq 3 ]
	# the T4's answer, into the same report; without a network or a compiler it says what is missing
	if $(BIN)/python -m hybridlab.cli simulate --fetch; then \
		$(BIN)/python -m hybridlab.cli run params/t4-simulated.yaml --only 02 \
			-p load_orders=[] --output "$(OUTPUT)/t4-simulated" || [ $$? -eq 3 ]; \
	fi
	$(BIN)/python -m hybridlab.cli report "$(OUTPUT)"

test: $(VENV)/.dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports
	# a file's tests share what they have started; more threads than cores would wait for each other
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical \
		--maxprocesses 4 --dist loadfile --no-loadscope-reorder
	# the tests that need a GPU, on a simulated one: a card for each of pytest's processes
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m hybridlab.cli simulate \
		$(BIN)/python -m pytest -m gpu --numprocesses logical --maxprocesses 4 \
		--dist loadfile --no-loadscope-reorder \
		$(sort $(shell grep -rl --include='test_*.py' 'mark\.gpu' tests))

# released Whisper base on real speech; what cannot be fetched is said in the reason of the skip
test-real: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m real --durations 10 --numprocesses logical \
		--maxprocesses 4 --dist worksteal tests/real

lint: $(VENV)/.dev
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

# fails where it finds something, and where the vulnerability service cannot be asked
audit: $(VENV)/.dev
	$(BIN)/python -m pip_audit --strict --no-deps --disable-pip --requirement constraints.txt

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.weight_buffer
	$(BIN)/python -m benchmarks.decoding
	$(BIN)/python -m benchmarks.swaps
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.serve
	$(BIN)/python -m benchmarks.speech

# within 8 minutes on a machine with a GPU, into one folder (CHECK=DIR); elsewhere says there is none
gpu-check: $(VENV)/.dev
	$(BIN)/python -m benchmarks.gpu_check $(if $(CHECK),--output "$(CHECK)")

endurance: $(VENV)/.dev
	$(BIN)/python -m benchmarks.endurance > outputs/endurance.json
	mv outputs/endurance.json outputs/reference/benchmarks/endurance.json
	$(BIN)/python -m tools.readme

readme: $(VENV)/.base
	$(BIN)/python -m tools.repository
	$(BIN)/python -m tools.readme
	$(BIN)/python -m tools.columns
	$(BIN)/python -m tools.serve_options
	$(BIN)/python -m tools.planner_page

lab: $(VENV)/.base
	# over the whole checkout, so that a notebook's link to its report opens
	$(BIN)/python -m jupyter lab --ServerApp.root_dir=. \
		--LabApp.default_url=/lab/tree/notebooks/start.ipynb

constraints: $(VENV)/.dev
	# CUDA's torch asks for its own triton, which a CPU's does not
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//; s/^triton==.*/triton==3.7.1/' > constraints.txt

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python pyproject.toml constraints.txt
	$(call INSTALL,.)
	touch $@

# one resolution, which is most of an installation's time
$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(call INSTALL,'.[dev$(comma)ct2$(comma)browser$(comma)serve]')
	touch $(VENV)/.base $@
