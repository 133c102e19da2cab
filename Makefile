# The demonstration's training text: make demo TEXT=file
TEXT = demo/topics.txt
# The installation's prefix: make install PREFIX=/opt/jostle, below DESTDIR if that is set
PREFIX = /usr/local

.PHONY: test lint demo bench header release-interface library install uninstall package

# Every test, on every instruction set that this machine can run or emulate. As root, installs missing packages.
# docs/testing.md describes the parts, and how to run one.
test:
	scripts/test.sh

lint:
	cargo fmt --all --check
	cargo fmt --check --manifest-path core/link-proof/Cargo.toml
	cargo fmt --check --manifest-path core/device/Cargo.toml
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo fmt --check --manifest-path scripts/public-api/Cargo.toml
	scripts/check-documents.py
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

# Builds the Python package into .venv, trains for about a minute, and writes pictures, a checkpoint and a sample.
demo: $(filter demo/topics.txt,$(TEXT))
	scripts/demo.sh "$(TEXT)"

# Generates include/jostle.h from ffi.
header:
	JOSTLE_WRITE_HEADER=1 cargo test --locked --quiet -p jostle-ffi --features hosted --test header

# Records the C interface of a release in ffi/released.txt, which later versions are compared with.
release-interface:
	python3 ffi/tests/interface.py write include/jostle.h ffi/released.txt

# Builds libjostle.a and libjostle.so in target/library.
library:
	cargo build --locked --profile library -p jostle-archive

# Installs header, libraries, files for pkg-config and CMake, and jostle-plan.
install: library
	cargo build --locked --release -p jostle-plan
	DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" scripts/install.sh

uninstall:
	cd "$(DESTDIR)$(PREFIX)" && rm -f bin/jostle-plan include/jostle.h lib/libjostle.* lib/pkgconfig/jostle.pc
	rm -rf "$(DESTDIR)$(PREFIX)/lib/cmake/jostle" "$(DESTDIR)$(PREFIX)/share/jostle"

# Makes target/package: archives for processors without an operating system, for CMake, Zephyr, Arduino and PlatformIO.
package:
	scripts/package.sh

bench:
	cargo bench --locked -p jostle-benches

demo/topics.txt: scripts/demo-text.py
	python3 scripts/demo-text.py $@
