"""The Rust programs that are measured, built by cargo."""

import os
import subprocess
from pathlib import Path

from machine import ROOT


def target() -> Path:
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()


def build(kind: str = "", features: str = "", flags: str = "") -> Path:
    """The folder of the programs, one for each kind: those with other features or compiler's flags."""
    directory = target() / kind
    command = ["cargo", "build", "--locked", "--release", "--package", "jostle-benches", "--bins"]
    command += ["--no-default-features", "--features", features, "--target-dir", str(directory)]
    environment = os.environ | ({"RUSTFLAGS": f"{os.environ.get('RUSTFLAGS', '')} {flags}"} if flags else {})
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return directory / "release"
