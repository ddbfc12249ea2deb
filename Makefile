# `make demo` runs the main job, `make test` the tests; both set everything up first.
.PHONY: setup demo test types pytest test-shapes torture torture-cluster fuzz audit docs dist claims

# Some images forbid Python to keep what it compiles; each process would then compile torch anew, for seconds.
export PYTHONDONTWRITEBYTECODE :=

PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .venv/bin/uv)

# Worker processes get halves of the tests and take from each other at the end; neither waits for the other's last long one.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive .venv/bin/pytest -n 2 --dist worksteal
# In fresh workers, int8 runtimes last: a worker that had run all other tests, these among them, died when it started a process.
LATE := tests/demo tests/synthetic tests/training tests/video tests/weights $(wildcard tests/test_*.py) tests/quantization

demo: setup
	.venv/bin/leanpose demo $(PHOTO)

test: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	$(MAKE) --no-print-directory --jobs=2 types pytest

# Beside the tests, since it computes on one core alone.
types: setup
	.venv/bin/pyright

pytest: setup
	$(PYTEST) $(addprefix --ignore=,$(LATE))
	$(PYTEST) $(LATE)

# Every call in the package must keep the shapes that its signature states; slow, and no part of `make test`.
test-shapes: setup
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive .venv/bin/pytest -n 2 --jaxtyping-packages=leanpose,shape_checks.check \
		-m "not slow and not gpu and not network and not unshaped"

# Kills long commands at random and compares what they write, run again, with uninterrupted runs; seven minutes on two cores.
torture: setup
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive .venv/bin/python tests/torture/torture.py $(TORTURE)

# The same for workers and the command of `leanpose data label --ray`; wants the extra `ray` in the environment. Ten minutes.
torture-cluster: setup
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive .venv/bin/python tests/torture/cluster.py $(TORTURE)

# Damages 10,000 files for all readers and counts how they answer; FUZZ="--seed WORD" tries others. A quarter of an hour.
fuzz: setup
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive .venv/bin/python tests/fuzz/campaign.py $(FUZZ)

# Of the locked packages: no licence that forbids what ours allows, and none that is unknown (these two state theirs in a
# file: Apache-2.0, and NVIDIA's terms of CUDA); then no known vulnerability, which asks PyPI.
audit: setup
	$(UV) tool run pip-licenses --python .venv/bin/python --from=mixed --partial-match --order=license \
		--ignore-packages faster-coco-eval cuda-toolkit \
		--fail-on "AGPL;Affero;NonCommercial;Non-Commercial;CC-BY-NC;CC BY-NC;UNKNOWN"
	$(UV) tool run pip-audit --requirement requirements.lock --no-deps --disable-pip --strict

# The site, in `site/`, from the pages and the code; fails on any warning. `.venv-docs` holds what builds it.
docs: setup .venv-docs/.complete
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build

# Wheel and sdist of the last commit, built twice, as this folder holds it and in a copy elsewhere that nobody else may read;
# both must be the same to the byte. Beside them their checksums and a list of the locked packages (CycloneDX).
dist: export SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct)
dist: setup
	rm -rf dist
	$(UV) build --quiet --build-constraints requirements-build.txt --out-dir dist .
	cd dist && sha256sum *.whl *.tar.gz > SHA256SUMS
	copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && git archive HEAD | (umask 077 && tar -x -C "$$copy") && \
		$(UV) build --quiet --build-constraints requirements-build.txt --out-dir "$$copy/dist" "$$copy" && \
		cp dist/SHA256SUMS "$$copy/dist" && cd "$$copy/dist" && sha256sum --check SHA256SUMS
	$(UV) tool run --from cyclonedx-bom==7.5.0 cyclonedx-py requirements requirements.lock --pyproject pyproject.toml \
		--mc-type library --output-reproducible --output-file dist/leanpose.cdx.json

# Recomputes figures of the README and docs/models.md and fails where one has changed; CLAIMS="--list" shows them.
claims: setup
	OMP_WAIT_POLICY=passive .venv/bin/python benchmarks/claims.py $(CLAIMS)

setup: .venv/.complete

# uv installs the locked versions; where there is no uv, pip fetches it into the environment first.
.venv/.complete: pyproject.toml requirements.lock
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@test -x "$(UV)" || .venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(CURDIR)/.venv $(UV) pip install --quiet -r requirements.lock
	VIRTUAL_ENV=$(CURDIR)/.venv $(UV) pip install --quiet --no-deps -e .
	@touch $@

.venv-docs/.complete: docs/requirements.txt
	$(UV) venv --quiet --clear --python .venv/bin/python .venv-docs
	$(UV) pip install --quiet --python .venv-docs/bin/python -r docs/requirements.txt
	@touch $@
