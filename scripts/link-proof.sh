#!/usr/bin/env bash
# Proves that the core links for a Cortex-M4F without an operating system, an allocator or a way to panic.
# Where it does not, names the source lines from which a panic can be reached.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

target=thumbv7em-none-eabihf
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
binary=$CARGO_TARGET_DIR/$target/release/link-proof
flags="-C link-arg=--gc-sections -C link-arg=-emain"

command -v arm-none-eabi-nm >/dev/null || packages binutils-arm-none-eabi ||
    not_run "link proof: needs arm-none-eabi binutils (Debian: binutils-arm-none-eabi)"
if rustup_has $target; then
    build=(cargo build)
else
    packages rustc-web cargo-web rust-web-src ||
        not_run "link proof: needs 'rustup target add $target' (Debian: rustc-web cargo-web rust-web-src)"
    build=(debian_cargo build -Z build-std=core)
    flags+=" -C linker=arm-none-eabi-ld -C linker-flavor=ld"
fi

link() {
    (cd core/link-proof &&
        CARGO_TARGET_THUMBV7EM_NONE_EABIHF_RUSTFLAGS="$flags $*" \
            "${build[@]}" --locked --quiet --release --target $target)
}

if ! link; then
    echo "FAILED; what can reach a panic:" >&2
    link -C link-arg=--defsym=panic_path_is_reachable=0
    arm-none-eabi-objdump -d "$binary" |
        awk '/\t(bl|b|b\.w|b\.n)\t.*<.*(panicking|unwrap_failed|expect_failed|slice_index)/ {sub(":", "", $1); print $1}' |
        while read -r address; do
            arm-none-eabi-addr2line -i -f -C -e "$binary" "0x$address"
            echo
        done >&2
    exit 1
fi
if arm-none-eabi-nm "$binary" | grep -E 'rust_alloc|rust_dealloc|malloc'; then
    echo "FAILED: the symbols above allocate" >&2
    exit 1
fi
arm-none-eabi-size "$binary"
echo "link proof: no panic path, no allocator"
