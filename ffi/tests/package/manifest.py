"""What the tools read in the package's manifests: library.json and Arduino's library.properties against PlatformIO's
schema, and idf_component.yml by ESP-IDF's component manager.

manifest.py PACKAGE TARGETS.TXT
"""

import re
import sys
from pathlib import Path

from idf_component_tools.manager import ManifestManager
from platformio.package.manifest.parser import ManifestParserFactory
from platformio.package.manifest.schema import ManifestSchema

package = Path(sys.argv[1])
# PlatformIO fetches the list of licences.
ManifestSchema.load_spdx_licenses = staticmethod(
    lambda: {"licenses": [{"licenseId": "MIT"}, {"licenseId": "Apache-2.0"}]}
)
for name in "library.json", "library.properties":
    manifest = ManifestParserFactory.new_from_file(str(package / name)).as_dict()
    ManifestSchema().load_manifest(manifest)
    assert manifest["headers"] == ["jostle.h"], manifest
assert (manifest["precompiled"], manifest["ldflags"]) == ("true", "-ljostle"), manifest
# What Arduino's specification asks for beyond that.
fields = dict(line.split("=", 1) for line in (package / "library.properties").read_text().splitlines())
wanted = "name version author maintainer sentence paragraph category url architectures".split()
assert not set(wanted) - set(fields), fields
assert "*" not in fields["architectures"] and "avr" not in fields["architectures"].split(","), fields
assert re.fullmatch(r".+ <\S+@\S+>", fields["maintainer"]) and fields["url"].startswith("https://"), fields
words = dict(line.split("\t") for line in (package / "keywords.txt").read_text().splitlines())
for word, kind in {"jostle_plan": 1, "jostle_trainer": 1, "jostle_plan_init": 2, "jostle_clip_factor": 2}.items():
    assert words[word] == f"KEYWORD{kind}", (word, words[word])
assert words["JOSTLE_ADAMW"] == "LITERAL1", words

component = ManifestManager(str(package), "jostle").load()
assert component.targets, component
for target in component.targets:
    assert any(target in line.split() for line in Path(sys.argv[2]).read_text().splitlines()), target
