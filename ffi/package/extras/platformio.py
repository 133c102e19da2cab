"""The extraScript of library.json: links the archive that fits the flags which the project is compiled with.

archives.txt has the rules.
"""

import re
import sys
from pathlib import Path

Import("env", "pio_lib_builder")  # noqa: F821 - SCons brings it along

package = Path(pio_lib_builder.path)
flags = [str(flag) for flag in env.Flatten([env.get(name, []) for name in ("CCFLAGS", "CFLAGS", "ASFLAGS")])]


def value(option):
    """What the C compiler's flags say after `option=`. Of several, GCC takes the last."""
    return next((flag.partition("=")[2] for flag in reversed(flags) if flag.startswith(option + "=")), "")


def folder():
    """The archive's folder below src, or None."""
    processor = value("-mcpu") or value("-march") or env.BoardConfig().get("build.cpu", "")
    if value("-mabi") == "ilp32d":
        return None
    floats = value("-mfloat-abi") in ("hard", "softfp") or value("-mabi") == "ilp32f"
    floats = floats and not re.search(r"[+]nofp([+]|$)", processor)
    for line in (package / "extras" / "archives.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            processors, software, unit = line.split()
            if re.fullmatch(processors, processor.partition("+")[0]):
                return package / "src" / (unit if floats else software)
    return None


found = folder()
if not found or not (found / "libjostle.a").exists():
    sys.stderr.write(f"jostle has no archive for the flags {' '.join(flags)}\n")
    env.Exit(1)
env.Append(LIBPATH=[str(found)], LIBS=["jostle"])
