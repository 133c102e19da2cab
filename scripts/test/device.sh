#!/usr/bin/env bash
# Tests emulated processors without an operating system: firmware in C, the table of flash, memory and instructions,
# then products, loops and firmware in Rust.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

# Python and devices exchange checkpoints.
[ -x "$CARGO_TARGET_DIR/python-venv/bin/jostle" ] || step scripts/test/python.sh --install
step scripts/test/device/firmware.sh
step scripts/test/device/big-endian.sh
step scripts/test/device/stories.sh
# The table measures the archives that the firmware's test has built.
step scripts/device-table.sh --check cortex-m4 rv32imafc
step scripts/test/device/rust.sh cortex-m4 cortex-m7 rv32imafc
