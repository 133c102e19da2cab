"""Documents: the texts of files, folders, JSON lines and standard input, read piece by piece, and their tokens."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from jostle._checkpoint import json_object, understood
from jostle.tokenizers import Tokenizer

STANDARD_INPUT = Path("-")

_PIECE = 1 << 20
"""The characters of a piece, about. It does not depend on the number of processes, and so the tokens do not."""
_BESIDE, _FAR = 256, 4096
"""The least and the most characters on each side of a cut that show whether it changes tokens."""
_MOST_CUTS = 64
"""The places that are tried for a cut, before the piece grows."""
_WAITING = 4
"""The pieces that wait, for each process."""


def files(paths: Iterable[Path], suffixes: tuple[str, ...] = (".txt", ".jsonl")) -> list[Path]:
    """The files, and those in the folders whose names end so, in the order of their names."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix in suffixes)
        if not inside:
            raise ValueError(f"{path} has no files whose names end in {' or '.join(suffixes)}")
        found += inside
    return found


def size(paths: Iterable[Path]) -> int:
    """The bytes of the files, without standard input."""
    return sum(path.stat().st_size for path in paths if path != STANDARD_INPUT)


def lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects in a file of JSON lines, with their lines' numbers from 1."""
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                with understood(f"{path}, line {number}"):
                    yield number, json_object(line.decode())


def _open(path: Path) -> IO[bytes]:
    return sys.stdin.buffer if path == STANDARD_INPUT else path.open("rb")


def documents(paths: Iterable[Path]) -> Iterator[Iterator[str]]:
    """The text of each document, in parts: a file is one, or each line of a .jsonl file, which has its text as "text"."""
    for path in paths:
        if path.suffix != ".jsonl":
            yield _parts(path)
            continue
        for number, line in lines(path):
            if not isinstance(line.get("text"), str):
                raise ValueError(f'{path}, line {number}: there is no text; expected {{"text": "..."}}')
            yield iter([line["text"]])


def _parts(path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    begin = 0
    with _open(path) as file:
        while True:
            block = file.read(_PIECE)
            try:
                part = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                before = begin - len(error.object) + len(block)
                raise ValueError(f"{path} is not UTF-8 text (byte {before + error.start})") from None
            if begin == 0:
                # Some editors write it; it is not part of the text.
                part = part.removeprefix("\ufeff")
            if part:
                yield part
            if not block:
                return
            begin += len(block)


def pieces(text: Iterable[str], tokenizer: Tokenizer) -> Iterator[str]:
    """A document in pieces whose tokens, one after the other, are the tokens of the document."""
    waiting = ""
    for part in text:
        waiting += part
        if len(waiting) >= _PIECE:
            cut = _cut(waiting, tokenizer)
            if cut:
                yield waiting[:cut]
                waiting = waiting[cut:]
    if waiting:
        yield waiting


def _cut(text: str, tokenizer: Tokenizer) -> int:
    """The last place before a new line at which a cut changes no token; 0 if it is not found."""
    place = len(text) - _BESIDE
    for _ in range(_MOST_CUTS):
        place = text.rfind("\n", 0, place)
        if place <= 0:
            return 0
        # Whole lines if possible: a tokenizer may not know a part of a word.
        begin = text.rfind("\n", max(0, place - _FAR), max(0, place - _BESIDE))
        end = text.find("\n", place + _BESIDE, place + _FAR)
        left = text[max(0, place - _BESIDE) if begin < 0 else begin : place]
        right = text[place : place + _BESIDE if end < 0 else end]
        with contextlib.suppress(ValueError):
            parts = np.concatenate([tokenizer.encode(left), tokenizer.encode(right)])
            if np.array_equal(parts, tokenizer.encode(left + right)):
                return place
    return 0


Tokens = npt.NDArray[Any]


def tokens(
    texts: Iterable[Iterable[str]],
    tokenizer: Tokenizer,
    processes: int,
    report: Callable[[str], None] = lambda piece: None,
) -> Iterator[Tokens]:
    """The tokens of documents, in parts, whatever the number of processes. Each document ends with the tokenizer's token for
    that, if it has one. `report` gets each piece of text that is done."""
    end = [] if tokenizer.end_of_text is None else [np.array([tokenizer.end_of_text], np.int32)]

    def work() -> Iterator[str | None]:
        """The pieces, and None at the end of each document."""
        for text in texts:
            yield from pieces(text, tokenizer)
            yield None

    for piece, part in _encoded(work(), tokenizer, processes):
        if piece is None:
            yield from end
        else:
            report(piece)
            yield part


def _encoded(
    work: Iterable[str | None], tokenizer: Tokenizer, processes: int
) -> Iterator[tuple[str | None, Any]]:
    """Each piece with its tokens, in order."""
    if processes == 1:
        for piece in work:
            yield piece, None if piece is None else tokenizer.encode(piece)
        return
    # Imported here, because most programs need neither.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # A forked process would have the locks of threads that it does not have.
    context = multiprocessing.get_context("spawn")
    waiting: deque[tuple[str | None, Any]] = deque()
    with ProcessPoolExecutor(processes, context, _begin, (json.dumps(tokenizer.state()),)) as pool:
        try:
            for piece in work:
                waiting.append((piece, None if piece is None else pool.submit(_encode, piece)))
                if len(waiting) > _WAITING * processes:
                    piece, future = waiting.popleft()
                    yield piece, future and future.result()
            for piece, future in waiting:
                yield piece, future and future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_tokenizer: Tokenizer
"""The tokenizer of a process that encodes."""


def _begin(state: str) -> None:
    global _tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _tokenizer = Tokenizer.from_state(json.loads(state))


def _encode(piece: str) -> Tokens:
    return _tokenizer.encode(piece)
