"""RestoreFormer and ++; their parity is in ``test_restorers.py``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest
import torch

from photokeep_nodes._arch.restoreformer import RestoreFormer
from photokeep_nodes.errors import NodeInputError, WeightsFormatError
from photokeep_nodes.models import restoreformer, restoreformer_plus_plus
from photokeep_nodes.weight_formats import read_state_dict

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = restoreformer.SPEC, restoreformer_plus_plus.SPEC


def state_of(network: RestoreFormer, prefix: str = "") -> dict[str, torch.Tensor]:
    """Zeros of the right shapes that take no memory."""
    return {prefix + name: torch.zeros(()).expand(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.fixture(scope="module")
def shapes() -> tuple[RestoreFormer, RestoreFormer]:
    """Both networks, without values."""
    with torch.device("meta"):
        return RestoreFormer(), RestoreFormer(heads=4, asked=(4, 5))


def test_plus_plus_has_attention_at_a_second_scale(shapes: tuple[RestoreFormer, RestoreFormer]) -> None:
    old, new = (set(state_of(network)) for network in shapes)
    assert not old - new
    assert {name.rsplit(".", 3)[0] for name in new - old} <= {
        f"decoder.up.4.attn{end}" for end in ("", ".0", ".1", ".2")
    }
    assert [network.encoder.mid.attn_1.heads for network in shapes] == [8, 4]


def test_the_files_of_one_are_not_the_others(shapes: tuple[RestoreFormer, RestoreFormer]) -> None:
    old, new = shapes
    with pytest.raises(WeightsFormatError, match=r"not those of RestoreFormer: .*36 left over \(decoder.up.4.attn"):
        OLD.build(state_of(new))
    with pytest.raises(WeightsFormatError, match=r"not those of RestoreFormer\+\+: 36 missing"):
        NEW.build(state_of(old, "vqvae."))
    for spec in (OLD, NEW):
        with pytest.raises(WeightsFormatError, match="not those of RestoreFormer"):
            spec.build({"banana": torch.zeros(3)})
        with pytest.raises(WeightsFormatError, match="not those of RestoreFormer"):
            spec.build({"vqvae.banana": torch.zeros(3)})


def test_a_checkpoint_of_its_training_is_read_without_the_losses(
    shapes: tuple[RestoreFormer, RestoreFormer], tmp_path: Path
) -> None:
    """As PyTorch Lightning writes them, and with what was trained beside the network."""
    beside = {
        "vqvae.quantize.utility_counter": torch.zeros(1024),
        "loss.discriminator.main.0.weight": torch.zeros(4, 3, 4, 4),
    }
    path = tmp_path / "RestoreFormer++.ckpt"
    held = {"vqvae.quant_conv.bias": torch.ones(256), **beside}
    torch.save({"epoch": 3, "pytorch-lightning_version": "1.0.8", "callbacks": {}, "state_dict": held}, path)
    assert read_state_dict(path).keys() == held.keys()

    built = NEW.build({**state_of(shapes[1], "vqvae."), **read_state_dict(path)})
    assert 4 * sum(tensor.numel() for tensor in built.parameters()) == NEW.weight_bytes
    assert built.quant_conv.bias.sum() == 256
    # And under the names of a file that holds the network alone.
    alone = restoreformer_plus_plus._network_part(state_of(shapes[1]))
    assert alone.keys() == built.state_dict().keys()


def test_a_checkpoint_that_names_classes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "RestoreFormer++.ckpt"
    held = {"state_dict": {"vqvae.x": torch.zeros(2)}, "hyper_parameters": argparse.Namespace(lr=4.5e-6)}
    torch.save(held, path)
    with pytest.raises(WeightsFormatError, match=r"may carry code \(it names argparse.Namespace\)"):
        read_state_dict(path)


@pytest.mark.parametrize("shape", [(1, 3, 256, 256), (1, 3, 512, 544), (3, 512, 512), (1, 1, 512, 512)])
def test_other_shapes_are_refused(shapes: tuple[RestoreFormer, RestoreFormer], shape: tuple[int, ...]) -> None:
    with pytest.raises(NodeInputError, match="must be"):
        shapes[0](torch.zeros(shape))


def test_their_ids_are_not_those_of_mixtures() -> None:
    """A plus sign in an id parts a model from the one it is mixed with."""
    assert NEW.network_id == NEW.id
    assert (OLD.native_side, NEW.native_side) == (512, 512)
    assert all(spec.weights[0].licence.commercial for spec in (OLD, NEW))


def test_the_nearest_code_takes_the_place_of_each_pixel() -> None:
    from photokeep_nodes._arch.restoreformer import _Codebook

    torch.manual_seed(0)
    book = _Codebook()
    chosen = torch.randint(1024, (2, 3, 5))
    features = book.embedding.weight[chosen].permute(0, 3, 1, 2)
    with torch.no_grad():
        found = book(features + 0.1 * torch.randn_like(features))
    torch.testing.assert_close(found, features.detach(), rtol=0, atol=0)
