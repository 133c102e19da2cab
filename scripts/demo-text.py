"""Writes training text: Python's reference manual, 0.46 MB of English that every Python installation has."""

import pathlib
import sys

from pydoc_data.topics import topics

path = pathlib.Path(sys.argv[1])
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text("".join(topics[name] for name in sorted(topics)), encoding="utf-8")
