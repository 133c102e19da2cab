#!/usr/bin/env bash
# Trains a character model on a text, and leaves pictures, a checkpoint and a sample in demo/:
#     scripts/demo.sh FILE
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

python3 -c 'import ensurepip, venv' 2>/dev/null || packages python3-venv ||
    not_run "demo: needs Python's venv module (Debian: python3-venv)"
[ -x .venv/bin/python ] || python3 -m venv .venv
echo "building the Python package"
MATURIN_PEP517_ARGS=--locked .venv/bin/pip install --quiet --disable-pip-version-check './python[cli,plot]'

rm -rf demo/run
.venv/bin/jostle train "$1" --out demo/run
.venv/bin/jostle plot demo/run --kind all --out demo
cp demo/run/checkpoint.safetensors demo/run/sample.txt demo/
echo "left in demo: loss.png attention.png surface.png checkpoint.safetensors sample.txt"
