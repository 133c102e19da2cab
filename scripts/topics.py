"""Writes Python's own reference manual, 0.46 MB of English that every Python brings along, as training text."""

import pathlib
import sys

from pydoc_data.topics import topics

path = pathlib.Path(sys.argv[1])
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text("".join(topics[name] for name in sorted(topics)), encoding="utf-8")
