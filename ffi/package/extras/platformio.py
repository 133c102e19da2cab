"""The extraScript of library.json: links the archive for the processor that the project is compiled for."""

import sys
from pathlib import Path

Import("env", "pio_lib_builder")  # noqa: F821 - SCons brings it along

flags = [str(flag) for flag in env.Flatten([env.get(name, []) for name in ("CCFLAGS", "CFLAGS", "ASFLAGS")])]


def value(option):
    """What the C compiler's flags say after `option=`, without extensions."""
    found = next((flag for flag in flags if flag.startswith(option + "=")), "")
    return found.partition("=")[2].partition("+")[0].partition("_")[0]


processor = value("-mcpu") or value("-march") or env.BoardConfig().get("build.cpu", "")
# All floating-point units of Arm have the same calling convention.
floats = "*-hard" if value("-mfloat-abi") == "hard" else "."
archives = list((Path(pio_lib_builder.src_dir) / processor).glob(floats + "/libjostle.a")) if processor else []
if not archives:
    sys.stderr.write(f"jostle has no archive for the processor {processor!r} of the flags {' '.join(flags)}\n")
    env.Exit(1)
env.Append(LIBPATH=[str(archives[0].parent)], LIBS=["jostle"])
