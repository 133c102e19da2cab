#!/usr/bin/env python3
"""Checks that documents and comments name only files that exist, and that relative links lead somewhere.

    scripts/check-documents.py [FILE...]

Reads every file that git tracks, or some. A name with a slash or in backticks may be relative to the repository, to the
document's folder or to any folder: `model/forward.rs` means core/src/model/forward.rs.
"""

import posixpath
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENDINGS = "rs|py|pyi|sh|md|c|h|S|ld|toml|txt|ini|in|cmake|safetensors|json|ino"
# A path with an ending, or a file name in backticks. Not after a character that continues a URL or a variable.
NAME = re.compile(rf"(?<![\w/:.$*}}>-])(?:\.\.?/)*[\w.-]+(?:/[\w.+-]+)*\.(?:{ENDINGS})\b(?![\w/*$(])")
COMMENTS = {
    ".rs": r"^\s*//.*",
    ".c": r"^\s*(?:/\*|\*|//).*",
    ".h": r"^\s*(?:/\*|\*|//).*",
    ".S": r"^\s*(?:/\*|\*|//|#\s).*",
    ".ld": r"^\s*(?:/\*|\*).*",
    ".py": r"^\s*#.*",
    ".pyi": r"^\s*#.*",
    ".sh": r"^\s*#.*",
    ".toml": r"^\s*#.*",
    ".txt": r"^\s*#.*",
    "": r".*",
    ".md": r".*",
}
DOCSTRING = re.compile(r'"""[\s\S]*?"""')
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Files and folders that users or builds make.
ABSENT = {
    *("main.c", "model.h", "step-NNNNNN.safetensors"),
    *("config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json"),
    *("chat_template.jinja", "tokens.tokenizer.json", "run.json", "valid.jsonl", "stdin.txt"),
}
MADE = ("target/", "demo/", "runs/", ".venv/", "/")
# A folder of the project, in backticks.
FOLDER = re.compile(r"`((?:core|ffi|python|benches|docs|include|scripts)/[\w./-]*)`")


def tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def prose(name, text):
    """(line number, text) of each line that is a document's or a comment's."""
    pattern = COMMENTS.get(Path(name).suffix)
    if pattern is None:
        return
    inside = set()
    if name.endswith((".py", ".pyi")):
        for match in DOCSTRING.finditer(text):
            first = text.count("\n", 0, match.start())
            inside.update(range(first, first + match.group().count("\n") + 1))
    for index, line in enumerate(text.splitlines()):
        if index in inside or re.match(pattern, line):
            yield index + 1, line
        # Scripts call each other.
        elif name.endswith(".sh") and "scripts/" in line:
            yield index + 1, " ".join(re.findall(r"scripts/[\w./-]+", line))


def anchors(path):
    """The fragments that a Markdown document's headings make."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    slug = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return set(slug)


def main():
    names = tracked()
    # Every tail of every path, so that a name may begin at any folder.
    tails = set()
    for name in names:
        parts = name.split("/")
        tails.update("/".join(parts[start:]) for start in range(len(parts)))
    wrong = []
    for name in [posixpath.normpath(given) for given in sys.argv[1:]] or names:
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue
        folder = posixpath.dirname(name)
        for number, line in prose(name, text):
            for match in NAME.finditer(line):
                said = match.group()
                alone = "/" not in said
                if alone and line[match.start() - 1 : match.start()] != "`":
                    continue
                bare = re.sub(r"^(\.\.?/)+", "", said)
                if bare in tails or posixpath.basename(said) in ABSENT or said.startswith(MADE):
                    continue
                if (ROOT / folder / said).exists() or (ROOT / said).exists():
                    continue
                wrong.append(f"{name}:{number}: {said} does not exist")
            for said in FOLDER.findall(line):
                if not (ROOT / said).exists():
                    wrong.append(f"{name}:{number}: {said} does not exist")
            if not name.endswith(".md"):
                continue
            for link in LINK.findall(line):
                if re.match(r"[a-z]+:", link):
                    continue
                path, _, fragment = link.partition("#")
                target = ROOT / folder / path if path else ROOT / name
                if not target.exists():
                    wrong.append(f"{name}:{number}: the link {link} leads to no file")
                elif fragment and target.suffix == ".md" and fragment not in anchors(target):
                    wrong.append(f"{name}:{number}: the link {link} leads to no heading")
    if wrong:
        sys.exit("\n".join(dict.fromkeys(wrong)))


if __name__ == "__main__":
    main()
