"""Licences that the user accepted: asked once for each that does not allow commercial use, and remembered."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from .errors import LicenceNotAcceptedError, WeightsError
from .user_records import UserRecords

if TYPE_CHECKING:
    from .model_spec import Licence, ModelSpec

_records = UserRecords("licences.json")


def accept(licence: Licence) -> None:
    """Remember that the user accepted these terms.

    Raises:
        WeightsError: it cannot be written down.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        _records.put({licence.id: {"accepted": now, "url": licence.url}})
    except OSError as error:
        raise WeightsError(f"the consent to {licence.id} cannot be kept in {_records.path}: {error}") from error


def accepted_at(licence_id: str) -> str | None:
    """When the user accepted these terms, ISO 8601, or None."""
    entry = _records.get(licence_id)
    return None if entry is None else entry.get("accepted", "")


def require(spec: ModelSpec, licence: Licence) -> None:
    """Check that the weights of ``spec`` may be fetched.

    Raises:
        LicenceNotAcceptedError: they do not allow commercial use, and the user has not accepted that.
    """
    if licence.commercial or accepted_at(licence.id) is not None:
        return
    note = f"\n  {licence.note}" if licence.note else ""
    quoted = f'"{licence.id}"' if " " in licence.id else licence.id
    raise LicenceNotAcceptedError(
        f"{spec.title}: the licence {licence.id} does not allow commercial use, and you have not accepted it.\n"
        f"  terms  {licence.url}{note}",
        hint=f"If you accept them: photokeep models get {spec.id} --accept-license {quoted}",
        model=spec.id,
        licence=licence.id,
    )
