#!/usr/bin/env bash
# Builds the Python package's wheel, installs it into a new virtual environment, and tests the installed package.
# Arguments go to pytest, to select tests:
#     scripts/test/python.sh -k golden
#     scripts/test/python.sh --install   # installs, and tests nothing
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

environment=$CARGO_TARGET_DIR/python-venv
wheels=$CARGO_TARGET_DIR/wheels

# Debian has the module venv in a separate package.
python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || packages python3-venv ||
    not_run "Python's tests: need Python 3.10 or later with venv (Debian: python3-venv)"
[ -x "$environment/bin/python" ] || python3 -m venv "$environment"
PATH=$environment/bin:$PATH
unset PYTHONPATH
python -m pip install --quiet --upgrade 'pip>=25.1' 'maturin>=1.9,<2'
(cd python && python -m pip install --quiet --group test)

rm -rf "$wheels"
maturin build --quiet --interpreter "$environment/bin/python" --manifest-path python/Cargo.toml --locked --out "$wheels"
wheel=("$wheels"/*.whl)
size=$(wc -c <"${wheel[0]}")
echo "wheel: $size bytes"
[ "$size" -le 3000000 ] || fail "the wheel has more than 3 MB"
grep -q 'licenses/LICENSE-MIT' < <(python -m zipfile --list "${wheel[0]}") || fail "the wheel has no licence"
# First the requirements of the extras, then this wheel even if the same version is installed.
python -m pip install --quiet "${wheel[0]}[cli,plot,hf,tensorboard]"
python -m pip install --quiet --force-reinstall --no-deps "${wheel[0]}"
python -c 'import jostle, sys; sys.exit(not jostle.__file__.startswith(sys.prefix))' ||
    fail "the imported package is not the wheel"
[ "${1:-}" != --install ] || exit 0

ruff check --no-cache python benches
ruff format --no-cache --check python benches
(cd python && mypy --cache-dir="$CARGO_TARGET_DIR/mypy")
# Other files there import PyTorch and JAX.
mypy --config-file python/pyproject.toml --cache-dir="$CARGO_TARGET_DIR/mypy" \
    benches/compare/{steps,generation,growth,operations,step_profile,peer}.py
python -m mypy.stubtest --mypy-config-file python/pyproject.toml jostle._native
pytest -c python/pyproject.toml --rootdir python -p no:cacheprovider --import-mode=importlib python/tests "$@"

# Once more with the checks of a debug build: overflow, and the core's own assertions.
maturin build --quiet --interpreter "$environment/bin/python" --manifest-path python/Cargo.toml --locked \
    --profile dev --out "$wheels/checked"
python -m pip install --quiet --force-reinstall --no-deps "$wheels"/checked/*.whl
pytest -q -c python/pyproject.toml --rootdir python -p no:cacheprovider --import-mode=importlib \
    python/tests/test_{interface,views,copies,files,tokenizers,pretrained,generation,batches,interrupt,interrupted_steps,same_bits,frozen,ops,bad_input}.py
