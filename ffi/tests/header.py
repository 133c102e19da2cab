"""Checks include/jostle.h in ways that a compiler does not.

    header.py check jostle.h Cargo.toml     every public item has a comment, and the version is Cargo.toml's

    header.py functions jostle.h            prints the functions

    header.py covered jostle.h [NAME...]    standard input, from bad_input, has every function but
                                            those named, and every status that a test can cause

    header.py cut jostle.h STRUCT FIELD     prints the header with a struct that ends before this field
"""

import re
import sys
from pathlib import Path

# A test cannot make the system refuse a thread or find an internal error. JOSTLE_OTHER is for errors of later versions.
# same_bits.c brings about the three of the second line.
NOT_BROUGHT_ABOUT = {"JOSTLE_THREADS", "JOSTLE_INTERNAL", "JOSTLE_OTHER"} | {
    "JOSTLE_RUN", "JOSTLE_SPIKE", "JOSTLE_FLOATING_POINT"}


def items(header):
    """Each public item's line number, name and kind, and whether a comment precedes it."""
    inside, enums, previous = None, set(), ""
    for number, line in enumerate(header.splitlines(), 1):
        documented = previous.lstrip().startswith("//")
        if line.strip():
            previous = line
        if line == "enum":
            inside, enum_documented = "enumerator", documented
        elif match := re.match(r"  (\w+) : u?int32_t$", line):
            enums.add(match[1])
            yield number, match[1], "enum", enum_documented
        elif match := re.match(r"typedef struct (\w+)( \w+;)?", line):
            inside = None if match[2] else "field"
            yield number, match[1], "struct", documented
        elif line.startswith("}"):
            inside = None
        elif match := re.match(r"typedef \w+ \(\*(\w+)\)", line):
            yield number, match[1], "typedef", documented
        elif match := re.match(r"\s*typedef .*?(\w+);", line):
            # The typedef of an enum repeats its name.
            if match[1] not in enums:
                yield number, match[1], "typedef", documented
        elif match := re.match(r"#define (\w+) ", line):
            yield number, match[1], "macro", documented
        elif match := re.match(r"[\w ]+[ *](jostle_\w+)\(", line):
            yield number, match[1], "function", documented
        elif inside == "field" and (match := re.match(r"    (?!//).*?(\w+)(\[\d+\])?;$", line)):
            yield number, match[1], "field", documented
        elif inside == "enumerator" and (match := re.match(r"    (\w+) = (\d+),$", line)):
            yield number, match[1], "enumerator", documented


def without_introduction(header):
    """The header with its first comment blanked, so that lines keep their numbers."""
    introduction, rest = header.split("*/", 1)
    return "\n" * introduction.count("\n") + rest


def cut(header, struct, field):
    """The header as it was before this field and those after it were appended to the struct."""
    body = re.search(rf"^typedef struct {struct} \{{$(.*?)^\}} {struct};$", header, re.MULTILINE | re.DOTALL)
    declaration = re.search(rf"^(    //.*\n)*    [^/\n]*\b{field};$", body[1], re.MULTILINE)
    return header[: body.start(1) + declaration.start()] + header[body.end(1) :]


def functions(header):
    return [name for _, name, kind, _ in items(header) if kind == "function"]


def check(header, cargo):
    found = list(items(header))
    counts = {kind: sum(item[2] == kind for item in found) for kind in sorted({item[2] for item in found})}
    print(*(f"{count} {kind}s" for kind, count in counts.items()), sep=", ")
    assert counts.keys() == {"enum", "enumerator", "field", "function", "macro", "struct", "typedef"}, counts
    # Every public name in the header must be an item or a mention of one.
    code = re.sub(r"//.*", "", header)
    unknown = set(re.findall(r"\b(?:jostle|JOSTLE)_\w+", code)) - {item[1] for item in found} - {"JOSTLE_H"}
    problems = [f"{name} is none of the known items" for name in sorted(unknown)]
    problems += [f"line {number}: {name} has no comment" for number, name, _, documented in found if not documented]
    wanted = re.search(r'^version = "(.*)"$', cargo, re.MULTILINE)[1]
    parts = [re.search(rf"#define JOSTLE_VERSION_{part} (\d+)", header) for part in ("MAJOR", "MINOR", "PATCH")]
    version = ".".join(match[1] for match in parts)
    if version != wanted:
        problems.append(f"the header's version is {version}, Cargo.toml's {wanted}")
    return problems


def covered(header, printed, excepted):
    problems = []
    called = set(re.findall(r"^function (\w+)$", printed, re.MULTILINE))
    wanted = set(functions(header)) - set(excepted)
    problems += [f"{name} is not tested" for name in sorted(wanted - called)]
    problems += [f"{name} is not in the header" for name in sorted(called - wanted)]
    returned = {int(status) for status in re.findall(r"^status (\d+)$", printed, re.MULTILINE)}
    statuses = header[header.index("  jostle_status : int32_t") : header.index("};")]
    for name, number in re.findall(r"^    (\w+) = (\d+),$", statuses, re.MULTILINE):
        if int(number) not in returned and name not in NOT_BROUGHT_ABOUT:
            problems.append(f"no call returned {name}")
        returned.discard(int(number))
    problems += [f"status {number} is not in the header" for number in sorted(returned)]
    return problems


def main():
    command, path, *rest = sys.argv[1:]
    header = without_introduction(Path(path).read_text(encoding="utf-8"))
    if command == "cut":
        print(cut(header, *rest), end="")
        return
    if command == "functions":
        print(*functions(header), sep="\n")
        return
    if command == "check":
        problems = check(header, Path(rest[0]).read_text(encoding="utf-8"))
    elif command == "covered":
        problems = covered(header, sys.stdin.read(), rest)
    else:
        sys.exit(__doc__)
    if problems:
        sys.exit("\n".join(problems))


main()
