"""Shows which archive each package finds for the boards of boards.txt, and fails if one is not the wanted one.

    boards.py ffi/package

The archives here only hold the names of their targets, so that none needs to be built. CMake runs for the rows of CMake and
Zephyr, PlatformIO's script for every row with flags, and Arduino's rule (arduino-cli, libraries.go) is written here.
"""

import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

here = Path(__file__).parent


def stub(source, package):
    """The package with archives that only hold their target's name."""
    for name in ("cmake", "extras", "zephyr"):
        (package / name).symlink_to((source / name).resolve())
    for line in (source / "targets.txt").read_text().splitlines():
        if not line.startswith("#"):
            target, *folders = line.split()
            for folder in folders:
                (package / "src" / folder).mkdir(parents=True, exist_ok=True)
                (package / "src" / folder / "libjostle.a").write_text(target)


def archive(folder):
    path = folder / "libjostle.a" if folder else None
    return path.read_text() if path and path.exists() else "-"


def arduino(package, mcu, flags):
    """The rule of arduino-cli: the first words with `fpu` and `float-abi`, then the processor alone."""
    values = [next((word.split("=")[1] for word in flags.split() if name in word), "") for name in ("fpu", "float-abi")]
    exact = package / "src" / mcu / "-".join(value for value in values if value)
    return archive(exact if exact.exists() else package / "src" / mcu)


def cmake(script, package, *words):
    command = ["cmake", f"-DPACKAGE={package}", *words, "-P", here / script]
    run = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"links (\S+)/libjostle.a", run.stdout)
    return archive(Path(found[1]) if found else None)


def platformio(package, flags):
    found = {}

    class Environment(dict):
        def Flatten(self, lists):
            return [word for words in lists for word in words]

        def BoardConfig(self):
            return {}

        def Append(self, LIBPATH, LIBS):
            found["folder"] = Path(LIBPATH[0])

        def Exit(self, status):
            raise SystemExit(status)

    names = {"env": Environment(CCFLAGS=flags.split()), "pio_lib_builder": SimpleNamespace(path=str(package))}
    try:
        runpy.run_path(str(package / "extras" / "platformio.py"), {**names, "Import": lambda *names: None})
    except SystemExit:
        return "-"
    return archive(found["folder"])


def main():
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        package = Path(name)
        stub(Path(sys.argv[1]), package)
        for line in (here / "boards.txt").read_text().splitlines():
            if line.startswith("#"):
                continue
            board, way, mcu, words, wanted = (cell.strip() for cell in line.split("|"))
            found = {}
            if way == "arduino":
                found["Arduino"] = arduino(package, mcu, words)
            if way == "zephyr":
                settings = [f"-D{word}" for word in words.split()]
                found["Zephyr"] = cmake("zephyr.cmake", package, "-DCONFIG_JOSTLE=y", *settings)
            else:
                found["CMake"] = cmake("flags.cmake", package, f"-DFLAGS={words}")
                found["PlatformIO"] = platformio(package, words)
            bad = {name: target for name, target in found.items() if target != wanted}
            wrong += len(bad)
            print(f"{board}: {wanted} by {', '.join(found)}" + "".join(f"; WRONG: {n} has {t}" for n, t in bad.items()))
    sys.exit(f"{wrong} wrong archives" if wrong else 0)


main()
