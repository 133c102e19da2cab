#!/usr/bin/env bash
# Tests the core on other kinds of machines, under qemu-user: big-endian PowerPC, 32-bit x86, 32-bit Arm, 64-bit RISC-V. A
# checkpoint moves between all of them and this machine. All but x86 have a fused multiply-add, which the core then uses.
# QEMU 7.2 multiplies doubles wrongly for s390x, which would be another big-endian one.
#     scripts/test/machines.sh ppc64            # one machine
#     scripts/test/machines.sh ppc64 --lib      # its unit tests
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

# machine NAME TARGET COMPILER PACKAGE... [-- ARGUMENT...]: runs the tests that cargo's arguments select.
machine() {
    local name=$1 target=$2 compiler=$3 needs=() variable cargo=(cargo)
    shift 3
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        needs+=("$1")
        shift
    done
    shift
    packages qemu-user "${needs[@]}" || programs "qemu-$name" "$compiler" ||
        not_run "$name: needs qemu-$name and $compiler (Debian: qemu-user ${needs[*]})"
    if ! rustup_has "$target"; then
        packages rustc-web cargo-web rust-web-src ||
            not_run "$name: needs 'rustup target add $target' (Debian: rustc-web cargo-web rust-web-src)"
        cargo=(debian_cargo -Z build-std=std,panic_unwind,test)
    fi
    variable=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")
    export "${variable}_LINKER=$compiler" "${variable}_RUNNER=qemu-$name"
    # Linked statically, as for aarch64.
    export "${variable}_RUSTFLAGS=-C target-feature=+crt-static${cpu:+ -C target-cpu=$cpu}"
    JOSTLE_INSTRUCTION_SETS=portable "${cargo[@]}" test --locked -p jostle --target "$target" "$@"
}

# on NAME [ARGUMENT...]
on() {
    local name=$1
    shift
    case $name in
        # Older processors have AltiVec only, which Linux lets flush denormal numbers.
        ppc64) cpu=pwr8 QEMU_CPU=power8 machine ppc64 powerpc64-unknown-linux-gnu powerpc64-linux-gnu-gcc \
            gcc-powerpc64-linux-gnu libc6-dev-ppc64-cross -- "$@" ;;
        i386) machine i386 i686-unknown-linux-gnu i686-linux-gnu-gcc \
            gcc-i686-linux-gnu libc6-dev-i386-cross -- "$@" ;;
        riscv64) machine riscv64 riscv64gc-unknown-linux-gnu riscv64-linux-gnu-gcc \
            gcc-riscv64-linux-gnu libc6-dev-riscv64-cross -- "$@" ;;
        arm) cpu=cortex-a7 machine arm armv7-unknown-linux-gnueabihf arm-linux-gnueabihf-gcc \
            gcc-arm-linux-gnueabihf libc6-dev-armhf-cross -- "$@" ;;
        *) fail "no such machine: $name; the machines are: ppc64 i386 arm riscv64" ;;
    esac
}

if [ $# -gt 1 ]; then
    on "$@"
    exit
fi
JOSTLE_MACHINES=$CARGO_TARGET_DIR/machines
export JOSTLE_MACHINES
rm -rf "$JOSTLE_MACHINES"
mkdir -p "$JOSTLE_MACHINES"
step cargo test --locked -p jostle --test machines
machines=(ppc64 i386)
[ -z "${JOSTLE_SOAK:-}" ] || machines+=(arm riscv64)
for name in ${1:-${machines[@]}}; do
    step on "$name" --test checkpoint --test golden --test machines
    [ -z "${JOSTLE_SOAK:-}" ] || step on "$name" --test device --test founding --test slots
    step on "$name" --lib -- simd::tests
    step on "$name" --test contract -- fifty_steps_have_the_bits
    # Generation takes minutes under emulation.
    [ -z "${JOSTLE_SOAK:-}" ] || step on "$name" --test contract -- cached_generation --skip llama
done
# This machine reads the files of all others.
step cargo test --locked -p jostle --test machines
