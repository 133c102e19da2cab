#!/usr/bin/env bash
# Runs the relay and the pool through all interleavings of two and three threads, with loom.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

# A folder of its own: another RUSTFLAGS would rebuild everything.
export CARGO_TARGET_DIR=$CARGO_TARGET_DIR/loom RUSTFLAGS="--cfg loom"
cargo test --locked -p jostle -p jostle-pool --lib interleavings
