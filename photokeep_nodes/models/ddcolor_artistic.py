"""DDColor, trained on artistic pictures too, and without a reward for being colourful: fewer blots of red."""

from __future__ import annotations

from ._ddcolor import entry

SPEC = entry(
    "artistic",
    node_name="DDColorArtistic",
    title="DDColor artistic",
    tiny=False,
    size_bytes=911_950_059,
    sha256="a591ee5beedad36de703d8977e92d0c30c1eedc6453fd1b300f3b460842a23a9",
    description="Colours black-and-white photos and pictures; calmer than DDColor, with fewer blots. Needs 1 GB.",
)
