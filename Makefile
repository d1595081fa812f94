# The two commands of the README are `make run` and `make test`; the rest is for who works on Weir.
.PHONY: run build test bench check clean

run: build
	@exec build/release/weir serve

build:
	@tools/setup
	@cmake --preset release >/dev/null
	@cmake --build build/release --target weir

test:
	@tools/setup test
	@tests/run

bench: build
	@tools/setup test
	@bench/run

# What .ci/run checks beside the tests.
check:
	@tools/setup test
	@tools/check

clean:
	rm -rf build
