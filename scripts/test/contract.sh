#!/usr/bin/env bash
# Tests the numerical contract where that takes minutes: functions at every float, release builds, products of another
# library, and processors under emulation.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

export JOSTLE_INSTRUCTION_SETS=${JOSTLE_INSTRUCTION_SETS-$(instruction_sets)}
# exp, log and the normal distribution at every float.
step cargo test --locked -p jostle --lib -- --ignored
# As users build it: without debug assertions.
step cargo test --locked -p jostle --release --test contract --test golden --test faults
# PyTorch's numbers, from the products of another library.
step cargo test --locked -p jostle --features matrixmultiply --test golden --test matmul
step scripts/test/contract/aarch64.sh
step scripts/test/contract/avx512.sh
