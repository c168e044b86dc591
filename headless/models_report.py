"""What there is to know about the models' weights and their licences. Plain data; `models_display` prints it."""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING, Any

from photokeep_nodes import digests, importing, licences, models, weights
from photokeep_nodes.errors import NodeInputError, PhotokeepError, WeightsError
from photokeep_nodes.model_spec import ROLES
from photokeep_nodes.models import _dropped_in, _network

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from photokeep_nodes.model_spec import Licence, ModelSpec

OWN_FILE = "own file"
"""In place of a role, in the rows of `own_files_report`."""


def weights_report(
    *,
    names: Collection[str] | None = None,
    check_digests: bool = False,
    on_bytes: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Every model of the catalogue, by stage, and whether its weights are here.

    Args:
        names: ids of the only ones to look at; None for all.
        check_digests: also hash each installed file and compare it with the catalogue.
        on_bytes: told how many more bytes were hashed, as they are.
    """
    rows = []
    for spec in sorted(models.catalogue().values(), key=lambda each: ROLES.index(each.role)):
        if names is not None and spec.id not in names:
            continue
        found = weights.status(spec)
        file = found.installed.file if found.installed is not None else spec.weights[0]
        state, detail, hint = found.state, found.detail, ""
        if state == "corrupt":
            hint = f"Replace it with: {weights.install_command(spec)}"
        if check_digests and found.installed is not None:
            try:
                weights.verify(spec, rehash=True, on_bytes=on_bytes)
                detail = _verified(file.sha256, digests.pinned(weights.pin_name(spec, file)))
            except WeightsError as error:
                state, detail, hint = "corrupt", error.message, error.hint
        rows.append(
            {
                "id": spec.id,
                "title": spec.title,
                "role": spec.role,
                "architecture": spec.architecture,
                "state": state,
                "detail": detail,
                "hint": hint,
                "file": file.filename,
                "path": str(found.installed.path) if found.installed is not None else None,
                "size_bytes": file.size_bytes,
                "sha256": file.sha256,
                "licence": file.licence.id,
                "licence_url": file.licence.url,
                "commercial": file.licence.commercial,
                "accepted": licences.accepted_at(file.licence.id),
                "note": file.licence.note,
                "install": weights.install_command(spec),
            }
        )
    return rows


def own_files_report() -> list[dict[str, Any]]:
    """Every weight file in the model folders that is not the catalogue's; reads none of them.

    ``roles`` are the stages that take it, ``architecture`` what it is: empty until it was imported or used.
    """
    rows = []
    for name in _dropped_in.names():
        try:
            path = _dropped_in.find(name)
            size_bytes, sha256, facts = path.stat().st_size, digests.known(path), _dropped_in.noted(path)
        except (OSError, PhotokeepError):  # gone since it was listed
            continue
        roles: tuple[str, ...] = ()
        if facts is not None:
            with contextlib.suppress(NodeInputError):
                roles = _network.roles_of(facts, name)
        rows.append(
            {
                "id": name,
                "title": path.stem,
                "role": OWN_FILE,
                "roles": list(roles),
                "architecture": "" if facts is None else f"{facts.architecture} x{facts.scale}",
                "state": "installed",
                "detail": "",
                "hint": "",
                "file": path.name,
                "path": str(path),
                "size_bytes": size_bytes,
                "sha256": sha256 or "",
                "licence": "",
                "licence_url": "",
                "commercial": None,
                "accepted": None,
                "note": "",
                "install": "",
            }
        )
    return rows


def _verified(sha256: str, pinned: str) -> str:
    if sha256:
        return "sha256 verified"
    return "as it was first seen" if pinned else "no digest is published; none was seen yet"


def imported_report(paths: Collection[Path], *, on_bytes: Callable[[int], None] | None = None) -> list[dict[str, Any]]:
    """Whether imported files are as they were written.

    Args:
        paths: which.
        on_bytes: told how many more bytes were hashed, as they are.
    """
    rows = []
    imported = importing.imported_files()
    for path in paths:
        expected, hint = imported.get(path, ""), ""
        try:
            found = digests.digest(path, rehash=True, on_bytes=on_bytes)
            state = "installed" if found == expected else "corrupt"
            detail = "sha256 verified" if found == expected else f"{path} has sha256 {found}, imported was {expected}"
            size_bytes = path.stat().st_size
        except OSError as error:
            state, detail, size_bytes = "corrupt", f"{path}: {error.strerror or error}", 0
        if state == "corrupt":
            hint = (
                "Import it again, with --force. If you have changed it yourself and trust it:"
                f" photokeep models verify {shlex.quote(str(path))} --trust"
            )
        rows.append(
            {
                "id": path.name,
                "role": "imported",
                "state": state,
                "detail": detail,
                "hint": hint,
                "path": str(path),
                "size_bytes": size_bytes,
                "sha256": expected,
                "licence": "",
                "commercial": True,
                "note": "",
            }
        )
    return rows


def bytes_to_hash(specs: Iterable[ModelSpec], imported: Iterable[Path]) -> int:
    """How much ``weights_report`` and ``imported_report`` would read to check the digests of these."""
    found = [weights.status(spec).installed for spec in specs]
    paths = [*(each.path for each in found if each is not None), *imported]
    return sum(path.stat().st_size for path in paths)


def catalogue_licences() -> dict[str, Licence]:
    """Every licence that a weight file of the catalogue comes under, by id."""
    return {file.licence.id: file.licence for spec in models.catalogue().values() for file in spec.weights}


def licences_report() -> list[dict[str, Any]]:
    """Every licence of the catalogue, the models under it, and whether the user accepted it."""
    found: dict[Licence, list[str]] = {}
    for spec in models.catalogue().values():
        for file in spec.weights:
            under = found.setdefault(file.licence, [])
            if spec.id not in under:
                under.append(spec.id)
    return [
        {
            "id": licence.id,
            "commercial": licence.commercial,
            "url": licence.url,
            "note": licence.note,
            "models": under,
            "accepted": licences.accepted_at(licence.id),
        }
        for licence, under in sorted(found.items(), key=lambda each: (each[0].commercial, each[0].id, each[0].url))
    ]
