"""DDColor with a small encoder: a quarter of the memory."""

from __future__ import annotations

from ._ddcolor import entry

SPEC = entry(
    "paper_tiny",
    node_name="DDColorTiny",
    title="DDColor tiny",
    tiny=True,
    size_bytes=220_393_145,
    sha256="",
    description="Colours black-and-white photos; a quarter of DDColor's size, and quicker.",
)
