#!/usr/bin/env bash
# Every test: on this machine, in Rust, C and Python, for processors without an operating system, and on 64-bit Arm
# under emulation.
set -euo pipefail
cd "$(dirname "$0")/.."

JOSTLE_INSTRUCTION_SETS=$(scripts/instruction-sets.sh)
export JOSTLE_INSTRUCTION_SETS
echo "instruction sets: $JOSTLE_INSTRUCTION_SETS"
# The ignored ones take minutes in all: exp, log and the normal distribution at every float.
cargo test --locked -p jostle -- --include-ignored
# PyTorch's numbers, from products of another library.
cargo test --locked -p jostle --features matrixmultiply --test golden --test matmul
cargo test --locked -p jostle-ffi --features hosted -p jostle-pool

# Two at a time: most of what follows is links and emulators, which use one processor each.
others=$(mktemp)
{
    # Devices exchange checkpoints with the Python package that its test has installed. The table of devices measures the
    # archives that their test has built.
    scripts/test-python.sh && scripts/test-device.sh && scripts/device-table.sh --check cortex-m4 rv32imafc &&
        scripts/test-products.sh cortex-m4 cortex-m7 rv32imafc && scripts/link-proof.sh && scripts/test-aarch64.sh
} >"$others" 2>&1 &
running=$!
passed=true
{
    scripts/test-ffi.sh && scripts/test-examples.sh && scripts/test-install.sh && scripts/test-package.sh &&
        scripts/test-instructions.sh
} || passed=false
wait $running || passed=false
cat "$others"
rm "$others"
$passed
