#!/usr/bin/env bash
# The long versions of the tests: some hours.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

export JOSTLE_SOAK=1
step scripts/test/soak/python.sh
step scripts/test/python/transformers.sh
step scripts/test/python/smollm2.sh
step scripts/test/machines.sh
step scripts/test/sanitizers.sh
step scripts/test/supply.sh
step scripts/test/fuzz.sh all 1200
