"""Get models: which files that takes, under which terms, and how they come into the model folder.

Nothing is fetched unless ``fetch`` is called, and it is called by nothing but the user's own ``photokeep models get``.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import digests, host, licences, weights
from .downloads import Silent, Wanted, download
from .errors import WeightsCorruptError, WeightsDownloadError, WeightsError
from .files import existing_parent
from .model_spec import Download, ModelSpec, WeightFile
from .models import catalogue
from .partial_file import kept_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .downloads import Listener, Patience


@dataclass(frozen=True)
class Order:
    """One model whose weights are wanted.

    Attributes:
        spec: the model.
        status: whether they are here, and as they should be.
        file: the file to fetch; None where it is published in no form that can be fetched.
        target: where it will lie.
        kept_bytes: of it that an earlier attempt left.
        wanted_by: the model whose slider needs this one, or None.
    """

    spec: ModelSpec
    status: weights.Status
    file: WeightFile | None
    target: Path | None
    kept_bytes: int = 0
    wanted_by: ModelSpec | None = None

    @property
    def missing(self) -> bool:
        """Whether there is something to do."""
        return self.status.state != "installed"


def orders(specs: Iterable[ModelSpec], *, with_partners: bool = True) -> list[Order]:
    """What getting models takes: each one's file, and those of the models that are mixed in.

    Args:
        specs: the models; of a mixture both.
        with_partners: also the partner of a model whose slider mixes it in unless the user moves it.
    """
    wanted: dict[str, tuple[ModelSpec, ModelSpec | None]] = {}
    for spec in specs:
        for part in spec.parts:
            wanted.setdefault(part.id, (part, None))
    if with_partners:
        for spec, _ in list(wanted.values()):
            partner = catalogue().get(spec.blend.partner) if spec.blend is not None else None
            if partner is not None and spec.blend is not None and spec.blend.share(spec.blend.default) != 0.0:
                wanted.setdefault(partner.id, (partner, spec))
    return [_order(spec, wanted_by) for spec, wanted_by in wanted.values()]


def _order(spec: ModelSpec, wanted_by: ModelSpec | None) -> Order:
    status = _checked(spec)
    for file in spec.weights:
        if isinstance(file.origin, Download):
            target = host.new_model_dir(file.origin.folder) / file.origin.filename
            return Order(spec, status, file, target, kept_bytes(target), wanted_by)
    return Order(spec, status, None, None, 0, wanted_by)


def _checked(spec: ModelSpec) -> weights.Status:
    """Whether the weights are here; a file whose digest is wrong counts as corrupt, and is still named.

    A digest that was taken since the file last changed is not taken again.
    """
    status = weights.status(spec)
    if status.installed is None:
        return status
    try:
        weights.verify(spec)
    except WeightsError as error:
        return replace(status, state="corrupt", detail=error.message)
    except OSError as error:
        return replace(status, state="corrupt", detail=f"{status.installed.path}: {error.strerror or error}")
    return status


def fetch(order: Order, *, listener: Listener | None = None, patience: Patience | None = None) -> Path:
    """Fetch one model's weights.

    Where another process fetches the same file, this one waits for it. The file appears under its name only when it
    is whole and its digest is right; one without a published digest must load as the model it is said to be.

    Returns:
        Where the file lies.
    Raises:
        LicenceNotAcceptedError: it does not allow commercial use, and the user has not accepted that.
        WeightsDownloadError: the network, a server or the disk failed, or it is not published as a download.
        WeightsCorruptError: every server sent other bytes, or something that is not the model.
    """
    spec, file, target = order.spec, order.file, order.target
    if file is None or target is None or not isinstance(file.origin, Download):
        raise WeightsDownloadError(
            f"{spec.title} is not downloaded as a file", hint=f"Get it with: {weights.install_command(spec)}"
        )
    licences.require(spec, file.licence)
    listener = listener or Silent()
    wanted = Wanted(
        target,
        (file.origin.url, *file.origin.mirrors),
        file.size_bytes,
        file.sha256 or digests.pinned(weights.pin_name(spec, file)),
        exact=bool(file.sha256),
        member=file.origin.member,
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target, listener):
            found = _checked(spec)
            if found.installed is not None and found.state == "installed":  # another process was quicker
                return found.installed.path
            _require_room(spec, wanted, order.kept_bytes)

            def check(part: Path) -> None:
                if not file.sha256:
                    weights.check_loads(spec, part, target.suffix)
                for spoilt in _in_the_way(found, target):
                    _set_aside(spoilt, listener)

            digest = download(wanted, listener=listener, patience=patience, check=check)
            digests.remember(target, digest)
            if not file.sha256:
                digests.pin(weights.pin_name(spec, file), digest)
    except WeightsCorruptError as error:
        hint = error.hint
        if wanted.sha256 and not file.sha256:
            hint += (
                f"\nIf its publisher has replaced it and you trust it: put it into {target.parent} yourself,"
                f" then: photokeep models verify {spec.id} --trust"
            )
        raise WeightsCorruptError(f"{spec.title}: {error.message}", hint=hint, model=spec.id) from error
    except WeightsDownloadError as error:
        hint = error.hint or f"Check the connection and try again, or put the file into {target.parent} yourself."
        if file.origin.member:
            archive = file.origin.url.rpartition("/")[2]
            hint += f"\nOr get {file.origin.url} with a browser, then: photokeep models import {archive}"
        raise WeightsDownloadError(
            f"{spec.title}: could not download {error.message}", hint=hint, model=spec.id, **error.context
        ) from error
    except OSError as error:
        raise WeightsDownloadError(
            f"{spec.title}: could not download to {target}: {error.strerror or error}",
            hint="Name another folder with PHOTOKEEP_MODELS.",
            model=spec.id,
        ) from error
    return target


@contextlib.contextmanager
def _alone(target: Path, listener: Listener) -> Iterator[None]:
    """Keep other processes from fetching the same file, or wait until they have."""
    import filelock

    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        listener.note("another process is fetching this file; waiting for it")
        lock.acquire(poll_interval=0.2)
    try:
        yield
        # Whoever still waits for this lock then finds the file in place, so that it does no harm to remove it here.
        Path(lock.lock_file).unlink(missing_ok=True)
    finally:
        lock.release()


def _in_the_way(found: weights.Status, target: Path) -> list[Path]:
    """What lies where the file belongs, and a spoilt one in a folder that is searched before that."""
    spoilt = found.installed
    if spoilt is None or spoilt.path == target or not isinstance(spoilt.file.origin, Download):
        return [target]
    return [target, spoilt.path]


def _set_aside(target: Path, listener: Listener) -> None:
    """Keep what lies in the way: in a folder that others use, it may be another version of theirs."""
    if target.is_file():
        names = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
        kept = next(path for each in names if not (path := target.with_name(f"{target.name}.replaced{each}")).exists())
        target.replace(kept)
        listener.note(f"{target.name} was there with other bytes; it is kept as {kept.name}")


def _require_room(spec: ModelSpec, wanted: Wanted, kept_bytes: int) -> None:
    needed = max(0, wanted.size_bytes - kept_bytes)
    free = shutil.disk_usage(existing_parent(wanted.target.parent)).free
    if free < needed:
        raise WeightsError(
            f"{spec.title} needs {needed / 1e6:.0f} MB in {wanted.target.parent}, which has {free / 1e6:.0f} MB free",
            hint="Free some space, or name another folder with PHOTOKEEP_MODELS.",
        )
