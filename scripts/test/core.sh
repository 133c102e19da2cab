#!/usr/bin/env bash
# Tests the core and its thread pool: unit tests, integration tests, examples in documents. Arguments go to
# `cargo test`, to select tests:
#     scripts/test/core.sh --test golden
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

export JOSTLE_INSTRUCTION_SETS=${JOSTLE_INSTRUCTION_SETS-$(instruction_sets)}
cargo test --locked -p jostle -p jostle-pool "$@"
