# Text to train the demonstration on: make demo TEXT=file
TEXT = demo/topics.txt
# Where to install: make install PREFIX=/opt/jostle, below DESTDIR if that is set
PREFIX = /usr/local

.PHONY: test lint demo bench header library install uninstall package

# Every test, on every instruction set that this machine can run or emulate. Installs what it needs.
test:
	scripts/test.sh

lint:
	cargo fmt --all --check
	cargo fmt --check --manifest-path core/link-proof/Cargo.toml
	cargo fmt --check --manifest-path core/device/Cargo.toml
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

# Builds the Python package into .venv, trains for about a minute, and leaves pictures, a checkpoint and a text.
demo: $(filter demo/topics.txt,$(TEXT))
	scripts/demo.sh "$(TEXT)"

# include/jostle.h, from ffi.
header:
	JOSTLE_WRITE_HEADER=1 cargo test --locked --quiet -p jostle-ffi --test header

# libjostle.a and libjostle.so, in target/library.
library:
	cargo build --locked --profile library -p jostle-archive

# Header, libraries, files for pkg-config and CMake, and jostle-plan.
install: library
	cargo build --locked --release -p jostle-plan
	DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" scripts/install.sh

uninstall:
	cd "$(DESTDIR)$(PREFIX)" && rm -f bin/jostle-plan include/jostle.h lib/libjostle.* lib/pkgconfig/jostle.pc
	rm -rf "$(DESTDIR)$(PREFIX)/lib/cmake/jostle"

# Archives for processors without an operating system, for CMake, Zephyr, Arduino and PlatformIO, in target/package.
package:
	scripts/package.sh

bench:
	cargo bench --locked -p jostle-benches

demo/topics.txt: scripts/topics.py
	python3 scripts/topics.py $@
