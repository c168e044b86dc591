"""What a saved photo is called: a template, filled in and made fit for every file system."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..errors import PhotoWriteError

if TYPE_CHECKING:
    from collections.abc import Mapping

# File systems allow 255 bytes; a number, an extension and the temporary name need room too.
_MAX_BYTES = 180
_FORBIDDEN = re.compile(r'[<>:"|?*\\/\x00-\x1f\x7f]')
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in "0123456789¹²³")})
_TOKEN = re.compile(r"%(photo|width|height|year|month|day|hour|minute|second|time|batch_num|date(?::[^%]{1,40})?)%")
_DATE_PART = re.compile(r"yyyy|yy|MM?|dd?|hh?|mm?|ss?")


def expand_name(
    template: str,
    *,
    info: Mapping[str, Any] | None = None,
    width: int = 0,
    height: int = 0,
    index: int = 0,
    now: datetime | None = None,
    example: str = "%photo%_restored",
) -> tuple[str, str]:
    """Fill in a file name.

    Args:
        template: without extension; ``/`` makes folders, as in ComfyUI. Known are ``%photo%`` (the source's name),
            ``%date%``, ``%date:yyyy-MM-dd hh-mm-ss%``, ``%time%``, ``%year%`` ... ``%second%``, ``%width%``,
            ``%height%`` and ``%batch_num%``; anything else between percent signs stays as it is.
        info: the photo's info, for its name; "photo" without.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        index: of the picture in its batch.
        now: the time to write; the present by default.
        example: a good template, for messages.

    Returns:
        Folder relative to the output folder, with forward slashes ("" for none), and the file name without extension.

    Raises:
        PhotoWriteError: the name is empty, absolute, or climbs out of the output folder.
    """
    moment = now or datetime.now().astimezone()
    plain = {
        "photo": str((info or {}).get("name") or "photo"),
        "width": str(width),
        "height": str(height),
        "batch_num": str(index),
        "date": f"{moment:%Y-%m-%d}",
        "time": f"{moment:%H-%M-%S}",
        **{unit: f"{getattr(moment, unit):02}" for unit in ("year", "month", "day", "hour", "minute", "second")},
    }

    def value(match: re.Match[str]) -> str:
        name = match[1]
        text = _date(name[5:], moment) if name.startswith("date:") else plain[name]
        # What is filled in is a part of one name: a photo called "a/b" makes no folder.
        return _FORBIDDEN.sub("_", text)

    # On Windows people type backslashes for folders; nowhere may one be part of a name.
    filled = _TOKEN.sub(value, template).replace("\\", "/")
    hint = f"Give a name such as {example} or album/{example}; it is relative to the output folder."
    if filled.startswith("/") or re.match(r"[A-Za-z]:/", filled):
        raise PhotoWriteError(f"the file name {template!r} is absolute", hint=hint)
    parts = [part for part in filled.split("/") if part not in ("", ".")]
    if ".." in (part.strip() for part in parts):
        raise PhotoWriteError(f"the file name {template!r} climbs out of the output folder", hint=hint)
    if not parts or filled.endswith("/"):
        raise PhotoWriteError(f"the file name {template!r} names no file", hint=hint)
    safe = [safe_component(part) for part in parts]
    return "/".join(safe[:-1]), safe[-1]


def _date(pattern: str, moment: datetime) -> str:
    """A date as ComfyUI's editor writes it: yyyy, yy, MM, M, dd, d, hh, h, mm, m, ss, s."""
    fields = {"y": moment.year, "M": moment.month, "d": moment.day, "h": moment.hour, "m": moment.minute}

    def part(match: re.Match[str]) -> str:
        text = match[0]
        if text == "yy":
            return f"{moment.year % 100:02}"
        return str(fields.get(text[0], moment.second)).zfill(len(text))

    return _DATE_PART.sub(part, pattern)


def safe_component(text: str) -> str:
    """A name that Windows, macOS and Linux all accept, at most 180 bytes long, never hidden, never empty."""
    text = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", text))
    # Lone surrogates (bytes of a file name that was not UTF-8) cannot be encoded everywhere.
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = text.encode("utf-8")[:_MAX_BYTES].decode("utf-8", "ignore").strip(" ").rstrip(". ")
    if text.startswith("."):
        text = "_" + text[1:]
    if text.split(".", 1)[0].lower() in _RESERVED:
        text = "_" + text
    return text or "photo"
