"""Bytes of code and constants that a program has from libjostle.a and the compiler's own library.

flash.py MAP

MAP is GNU ld's map of the program.
"""

import re
import sys
from pathlib import Path

# An input section: its name, alone on a line where it is long, address, size and file.
SECTION = re.compile(r"^ (\.[\w.$@-]+)\n? +0x([0-9a-f]+) +0x([0-9a-f]+) (.*)$", re.MULTILINE)
KEPT = (".text", ".rodata", ".srodata", ".ARM")
text = Path(sys.argv[1]).read_text()
kept = text[text.index("Linker script and memory map") :]
print(
    sum(
        int(size, 16)
        for name, _, size, file in SECTION.findall(kept)
        if name.startswith(KEPT) and ("libjostle.a" in file or "libgcc.a" in file)
    )
)
