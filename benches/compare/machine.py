"""The head of a report: where, when, with what and how it was measured."""

import datetime
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def header(title: str, packages: Iterable[str] = ()) -> str:
    """The title, and a Markdown list: date, machine, versions of jostle, rustc and these Python packages, and this command."""
    lines = {
        "date": datetime.date.today().isoformat(),
        "processor": f"{processor()}, {os.cpu_count()} processors",
        "caches": caches(),
        "memory": memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "jostle": output("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"),
        "rustc": output("rustc", "--version").removeprefix("rustc "),
        "Python": platform.python_version(),
    }
    lines |= {package: version(package) for package in packages}
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name
    lines["command"] = f"`{shlex.join(['python', str(name), *sys.argv[1:]])}`"
    return "\n".join([f"# {title}", "", *(f"- {what}: {value}" for what, value in lines.items())])


def processor() -> str:
    found = re.search(r"^model name\s*: (.*)", read("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else platform.processor() or "unknown"


def caches() -> str:
    """The caches of the first processor, as Linux reports them."""
    found = []
    for cache in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (read(cache / name).strip() for name in ("level", "type", "size"))
        found.append(f"L{level}{'' if kind == 'Unified' else kind[0].lower()} {size}")
    return ", ".join(found) or "unknown"


def memory() -> str:
    found = re.search(r"^MemTotal:\s*(\d+) kB", read("/proc/meminfo"), re.MULTILINE)
    return f"{int(found[1]) / 2**20:.0f} GiB" if found else "unknown"


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def output(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def read(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
