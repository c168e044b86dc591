"""DDColor, trained on photos of which those in black and white were taken out: the authors' own default."""

from __future__ import annotations

from ._ddcolor import entry

SPEC = entry(
    "modelscope",
    node_name="DDColorModelscope",
    title="DDColor",
    tiny=False,
    size_bytes=911_950_059,
    sha256="17c460d7e55b32a598370621d77173be59e03c24b0823f06821db23a50c263ce",
    description="Colours black-and-white photos, vividly and as if it knew what things are; needs 1 GB.",
)
