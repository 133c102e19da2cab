#!/usr/bin/env bash
# Compares with PyTorch, with PEFT, and with Hugging Face's Transformers, versions 4 and 5. Needs the installed package (scripts/test/python.sh --install),
# and installs PyTorch and both versions beside it: several gigabytes.
#     scripts/test/python/transformers.sh -k read
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh

environment=$CARGO_TARGET_DIR/python-venv
python=$environment/bin/python
[ -x "$python" ] || scripts/test/python.sh --install
"$python" -m pip install --quiet torch torchdata || not_run "comparison with Transformers: PyTorch cannot be installed"

for version in 4 5; do
    packages=$CARGO_TARGET_DIR/transformers-$version
    # Beside each other, because their own requirements differ.
    [ -d "$packages/transformers" ] ||
        "$python" -m pip install --quiet --target "$packages" "transformers>=$version,<$((version + 1))" ||
        not_run "comparison with Transformers $version: it cannot be installed"
    # PEFT with the newer version only. Its requirements are there, apart from these.
    [ "$version" = 4 ] || [ -d "$packages/peft" ] ||
        "$python" -m pip install --quiet --target "$packages" --no-deps peft accelerate psutil ||
        not_run "comparison with PEFT: it cannot be installed"
    PYTHONPATH=$packages "$python" -m pytest -c python/pyproject.toml --rootdir python -p no:cacheprovider \
        --import-mode=importlib -W default python/tests/test_{torch,transformers,transformers_training,peft}.py "$@"
done
