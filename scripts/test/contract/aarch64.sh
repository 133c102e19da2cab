#!/usr/bin/env bash
# Builds the core's tests for 64-bit Arm, and runs the NEON code's tests under emulation. Arguments go to `cargo test`,
# to select other tests:
#     scripts/test/contract/aarch64.sh --lib --test matmul
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh

target=aarch64-unknown-linux-gnu
if [ "$(uname -m)" = aarch64 ]; then
    echo "aarch64: this machine is one; its tests have run natively"
    exit
fi
# Packages first: a compiler on the path may lack its C library.
packages qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross ||
    programs qemu-aarch64 aarch64-linux-gnu-gcc ||
    not_run "aarch64: needs qemu-aarch64 and aarch64-linux-gnu-gcc (Debian: qemu-user gcc-aarch64-linux-gnu)"
if rustup_has $target; then
    cargo=cargo
else
    if programs dpkg && [ "$(id -u)" -eq 0 ]; then dpkg --add-architecture arm64; fi
    packages rustc-web cargo-web libstd-rust-web-dev:arm64 ||
        not_run "aarch64: needs 'rustup target add $target' (Debian: rustc-web cargo-web libstd-rust-web-dev:arm64)"
    cargo=debian_cargo
fi
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64
# Linked statically. Debian's arm64 C library may be installed beside the cross-compiler's. A dynamic program would load
# parts of each then, and hang in its first thread.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
export JOSTLE_INSTRUCTION_SETS=portable,neon
run() {
    $cargo test --locked -p jostle --target $target "$@"
}
if [ $# -gt 0 ]; then
    run "$@"
else
    run --lib --test device --test founding --test golden
    # Statistics of dropout take minutes under emulation.
    run --test ops -- --skip dropout::
    run --test matmul -- --skip blocks --skip extreme
    run --test contract -- fifty_steps cached_generation
fi
