#!/usr/bin/env bash
# Tests the C library: its Rust tests, the ABI from C, the examples, what is installed, and the package for devices.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

step cargo test --locked -p jostle-ffi --features hosted
step scripts/test/c/abi.sh
step scripts/test/c/examples.sh
step scripts/test/c/install.sh
step scripts/test/c/package.sh
