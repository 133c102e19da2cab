#!/usr/bin/env bash
# The long versions of python/tests/test_endurance.py: 200 kills, and 100,000 steps. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh

scripts/test/python.sh --install
PATH=$CARGO_TARGET_DIR/python-venv/bin:$PATH
JOSTLE_SOAK=1 pytest -c python/pyproject.toml --rootdir python -p no:cacheprovider --import-mode=importlib --durations=5 \
    python/tests/test_endurance.py "$@"
