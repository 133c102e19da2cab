"""Compares the C interface with the last release's, which ffi/released.txt records.

    interface.py check jostle.h RELEASED     fails if a program built with the release would not work with this header
    interface.py write jostle.h RELEASED     records this header as the release

Compilers for 64 and for 32 bits report the sizes. The rules:

  * Functions and callbacks keep their types; enumerators and constants keep their values; none disappears.
  * Fields keep their offsets and sizes. A struct with a `struct_size` may grow by fields at its end.
  * Other structs keep their sizes. New fields take the place of the end of a field called `more` or `reserved`.

A version with another number before its last dot may change everything (Cargo's rule before 1.0).
"""

import re
import subprocess
import sys
from pathlib import Path

# What a 64-bit and a 32-bit program contain. The compilers only write assembly, so they need no C library.
COMPILERS = {"64": ["gcc"], "32": ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb"]}
FIELD = re.compile(r"^    [^/\n]*?(\w+)(?:\[\d+\])?;$", re.MULTILINE)


def structs(header):
    for match in re.finditer(r"^typedef struct (\w+) \{$(.*?)^\} \1;$", header, re.MULTILINE | re.DOTALL):
        yield match[1], FIELD.findall(match[2])


def without_names(arguments):
    return ", ".join(re.sub(r"\b\w+$", "", " ".join(word.split())).strip() for word in arguments.split(","))


def layouts(header, path, compiler):
    """Lines of assembly that hold each size, found by the compiler: the method of Linux's asm-offsets."""
    program = ["#include <stddef.h>", f'#include "{Path(path).resolve()}"']
    program += ['#define SAY(name, number) __asm__("\\n@ABI " name " %c0" : : "i"(number))', "void interface(void) {"]
    for struct, fields in structs(header):
        program.append(f'SAY("{struct} size", sizeof(struct {struct}));')
        program.append(f'SAY("{struct} align", __alignof__(struct {struct}));')
        for field in fields:
            place = f"struct {struct}, {field}"
            program.append(f'SAY("{struct}.{field} offset", offsetof({place}));')
            program.append(f'SAY("{struct}.{field} size", sizeof(((struct {struct} *)0)->{field}));')
    run = subprocess.run(
        [*compiler, "-S", "-O0", "-x", "c", "-o", "-", "-"], input="\n".join([*program, "}"]), text=True,
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return re.findall(r"^@ABI (\S+) (\w+) (\d+)$", run.stdout, re.MULTILINE)


def interface(path):
    """From each name of the interface to its properties."""
    header = Path(path).read_text(encoding="utf-8").split("*/", 1)[1]
    header = re.sub(r"//.*", "", header)
    found = {}
    for name, value in re.findall(r"^#define (JOSTLE_\w+) (\d+)$", header, re.MULTILINE):
        found[f"constant {name}"] = {"value": value}
    for name, value in re.findall(r"^    (JOSTLE_\w+) = (\d+),$", header, re.MULTILINE):
        found[f"enumerator {name}"] = {"value": value}
    pattern = r"^typedef (\w+) \(\*(\w+)\)\((.*?)\);"
    for returned, name, arguments in re.findall(pattern, header, re.MULTILINE | re.DOTALL):
        found[f"callback {name}"] = {"type": f"{returned}({without_names(arguments)})"}
    pattern = r"^((?:const )?\w+ \*?)(jostle_\w+)\((.*?)\)(?: JOSTLE_FLOATS)?;"
    for returned, name, arguments in re.findall(pattern, header, re.MULTILINE | re.DOTALL):
        found[f"function {name}"] = {"type": f"{returned.strip()}({without_names(arguments)})"}
    for bits, compiler in COMPILERS.items():
        for name, what, number in layouts(header, path, compiler):
            kind = "field" if "." in name else "struct"
            found.setdefault(f"{kind} {name}", {})[what + bits] = number
    return found


def version(found):
    return tuple(found.pop(f"constant JOSTLE_VERSION_{part}")["value"] for part in ("MAJOR", "MINOR", "PATCH"))


def written(found):
    return "".join(f"{name}: {'; '.join(f'{key} {value}' for key, value in properties.items())}\n"
                   for name, properties in found.items())  # fmt: skip


def read(text):
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, properties = line.split(": ", 1)
            found[name] = dict(entry.split(" ", 1) for entry in properties.split("; "))
    return found


def broken(released, now):
    """What a program built with the release would find changed."""
    sized = {name[6:].split(".")[0] for name in released if name.endswith(".struct_size")}
    for name, before in released.items():
        after = now.get(name)
        if after is None:
            yield f"{name} has disappeared"
            continue
        for key, value in before.items():
            given, kind = after.get(key), name.split()[0]
            may_grow = kind == "struct" and key.startswith("size") and name[7:] in sized
            may_shrink = kind == "field" and key.startswith("size") and name.rsplit(".", 1)[1] in ("more", "reserved")
            if given == value or may_grow and int(given) > int(value) or may_shrink and int(given) < int(value):
                continue
            yield f"{name}: {key} was {value} and is {given}"


def main():
    command, header, path = sys.argv[1:]
    now = interface(header)
    if command == "write":
        Path(path).write_text(
            "# The C interface of the last release, or of the version to be released first. `make release-interface`\n"
            "# writes this file; ffi/tests/interface.py compares it with the header, and says what may change.\n"
            + written(now), encoding="utf-8",
        )  # fmt: skip
        return
    released = read(Path(path).read_text(encoding="utf-8"))
    (*series, _), (*released_series, _) = version(now), version(released)
    if series == released_series or series[0] == released_series[0] != "0":
        if problems := list(broken(released, now)):
            sys.exit("programs built with the last release would break:\n" + "\n".join(problems))
    print(f"interface: {len(released)} names of the last release are as they were, {len(now.keys() - released)} are new")


if __name__ == "__main__":
    main()
