"""What PlatformIO reads in the package's manifests: library.json against its schema, and Arduino's library.properties.

manifest.py PACKAGE
"""

import sys
from pathlib import Path

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
