# The short way in; the build itself is CMake's (CMakePresets.json). Output goes to build/ only.
#
#   make run      build and serve a model here     make tsan     tests under ThreadSanitizer
#   make test     all tests, ASan + UBSan          make fuzz     fuzzers, FUZZ_SECONDS each
#   make build    build/release/mooncake           make bench    benchmarks (bench/README.md)
#   make deps     install what is missing          make install  PREFIX=/usr/local DESTDIR=

MODEL ?= models/lookup
ARGS ?=
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
FUZZ_SECONDS ?= 60
PREFIX ?= /usr/local
DESTDIR ?=

VENV := build/venv
E2E := $(wildcard tests/e2e/test_*.py)
FUZZERS = $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))

# $(call build,PRESET[,TARGET]): configure and build, quiet unless something is wrong.
build = cmake --preset $1 --log-level=WARNING >build/$1.log && \
	cmake --build --preset $1 -j $(JOBS) $(if $2,--target $2)

.PHONY: all build run test tsan bench fuzz install deps deps-build deps-bench deps-fuzz clean
.NOTPARALLEL:
all: build

build: deps-build
	@$(call build,release)

run: build
	exec build/release/mooncake serve $(MODEL) $(ARGS)

# ctest's closing lines, then pytest's; nothing after them.
test: deps
	@$(call build,asan)
	@$(if $(E2E),,echo "tests/e2e: no tests yet, so pytest is not run")
	ctest --preset asan -j $(JOBS)
	$(if $(E2E),MC_TEST_BINARY=$(CURDIR)/build/asan/mooncake \
	    $(VENV)/bin/python -m pytest -q -p no:cacheprovider tests/e2e)

tsan: deps
	@$(call build,tsan)
	ctest --preset tsan -j $(JOBS) -LE check

bench: deps-bench
	@$(call build,release,bench)

# New inputs go to build/corpus; what is worth keeping is copied to tests/fuzz/corpus by hand.
fuzz: deps-fuzz
	@$(call build,fuzz)
	@$(if $(FUZZERS),,echo "tests/fuzz: no fuzzers" && exit 1)
	@set -e; for name in $(FUZZERS); do \
	    mkdir -p build/corpus/$$name; echo "fuzz $$name, $(FUZZ_SECONDS) s"; \
	    build/fuzz/tests/fuzz/fuzz-$$name -max_total_time=$(FUZZ_SECONDS) -verbosity=0 \
	        -print_final_stats=1 -artifact_prefix=build/corpus/$$name- \
	        build/corpus/$$name tests/fuzz/corpus/$$name; \
	done

install: build
	DESTDIR="$(DESTDIR)" cmake --install build/release --prefix "$(PREFIX)"

deps: | build-folder
	@tools/deps.sh build test
	@$(MAKE) -s $(VENV)/made
deps-build: | build-folder
	@tools/deps.sh build
deps-bench: | build-folder
	@tools/deps.sh build bench
deps-fuzz: | build-folder
	@tools/deps.sh build test fuzz

.PHONY: build-folder
build-folder:
	@mkdir -p build

# `made` is written last, so that a pip that failed is tried again.
$(VENV)/made: tools/requirements.txt
	@echo "deps: build/venv gets $$(grep -v '^#' tools/requirements.txt | tr '\n' ' ')from Python's registry"
	@python3 -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tools/requirements.txt
	@touch $@

clean:
	rm -rf build
