"""What torch itself writes is read as torch itself would; what anybody else writes is refused, and runs nothing."""

from __future__ import annotations

import os
import pickle
import struct
import sys
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from photokeep_nodes import torchscript_reader, weight_formats
from photokeep_nodes.errors import WeightsFormatError
from photokeep_nodes.torchscript_reader import read_torchscript

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# -- archives that torch writes --------------------------------------------------------------------------------------


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class Outer(nn.Module):
    """All that a module's attributes can be."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Inner()
        self.rest = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.PReLU(4))
        self.again = self.first  # one module under two names
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("halves", torch.arange(6, dtype=torch.float16).reshape(2, 3))
        self.register_buffer("brain", torch.ones(3, dtype=torch.bfloat16))
        self.register_buffer("doubles", torch.full((2,), 1 / 3, dtype=torch.float64))
        self.register_buffer("flags", torch.tensor([True, False, True]))
        self.register_buffer("bytes", torch.tensor([-3, 7], dtype=torch.int8))
        self.register_buffer("turned", torch.arange(12.0).reshape(3, 4).t())
        self.register_buffer("part", torch.arange(100.0)[40:50:3])
        self.register_buffer("nothing", torch.empty(0, 4))
        self.sizes = [1, 70_000, 2**40]
        self.steps = [0.5, 1.5]
        self.switches = [True, False]
        self.label = "a name"
        self.names = {"x": torch.ones(2)}
        self.several = [torch.ones(2)]
        self.pair = (1, -2)
        self.where = torch.device("cpu")
        self.nobody = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rest(self.again(self.first(x)[:, :3])) * self.scale


def compiled(module: nn.Module, *, traced: bool) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated
        if traced:
            return torch.jit.trace(module, torch.ones(1, 3, 8, 8), check_trace=False)
        return torch.jit.script(module)


def saved(program: torch.jit.ScriptModule, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program.save(str(path))
    return path


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would interpret a file fails when it is called."""

    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError("the file was interpreted")

    monkeypatch.setattr(torch.jit, "load", refuse)
    monkeypatch.setattr(torch._C, "import_ir_module", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)


@pytest.mark.parametrize("traced", [False, True])
def test_names_order_types_and_values_are_those_of_torchs_state_dict(
    tmp_path: Path, traced: bool, request: pytest.FixtureRequest
) -> None:
    program = compiled(Outer().eval(), traced=traced)
    wanted = program.state_dict()
    path = saved(program, tmp_path / "net.pt")
    request.getfixturevalue("forbidden")
    found = read_torchscript(path)
    assert list(found) == list(wanted)
    assert "again.norm.running_var" in found
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert torch.equal(found[name], tensor), name
        assert not found[name].requires_grad
    assert found["turned"].stride() == (1, 4)
    assert found["again.conv.weight"].data_ptr() == found["first.conv.weight"].data_ptr()


def test_the_other_readers_of_weight_files_take_it_too(tmp_path: Path) -> None:
    program = compiled(Inner().eval(), traced=True)
    path = saved(program, tmp_path / "net.pt")
    found = weight_formats.read_state_dict(path)
    for name, tensor in program.state_dict().items():
        assert torch.equal(found[name], tensor)


class WithAPlainTensor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.PReLU(3)
        self.window = torch.full((1, 1, 3, 3), 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * self.window.sum()


def test_a_tensor_that_is_only_an_attribute_comes_too(tmp_path: Path) -> None:
    program = compiled(WithAPlainTensor(), traced=False)
    assert list(program.state_dict()) == ["inner.weight"]
    found = read_torchscript(saved(program, tmp_path / "net.pt"))
    assert sorted(found) == ["inner.weight", "window"]
    assert torch.equal(found["window"], torch.full((1, 1, 3, 3), 2.0))


def test_a_program_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsFormatError, match="holds no tensors"):
        read_torchscript(saved(compiled(nn.ReLU(), traced=True), tmp_path / "net.pt"))


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    module = Inner().eval()
    with torch.no_grad():
        module.conv.weight[1, 2, 0, 0] = float("nan")
    path = saved(compiled(module, traced=True), tmp_path / "net.pt")
    with pytest.raises(WeightsFormatError, match=r"not numbers \(in conv\.weight\)"):
        weight_formats.read_state_dict(path)


@pytest.mark.parametrize("kept", [30, 1000, -5000, -100, -1])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    path = saved(compiled(Outer().eval(), traced=True), tmp_path / "net.pt")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsFormatError):
        weight_formats.read_state_dict(path)


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None], *, compress: str = "") -> Path:
    """A copy whose members went through ``change``, which may leave some out."""
    target = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            content = change(member.filename.partition("/")[2], old.read(member))
            if content is not None:
                packed = bool(compress) and compress in member.filename
                new.writestr(member.filename, content, zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED)
    return target


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(compiled(Outer().eval(), traced=True), tmp_path_factory.mktemp("net") / "net.pt")


def test_a_byte_that_flipped_is_noticed(genuine: Path, tmp_path: Path) -> None:
    content = bytearray(genuine.read_bytes())
    with zipfile.ZipFile(genuine) as archive:
        largest = max((each for each in archive.infolist() if "/data/" in each.filename), key=lambda i: i.file_size)
        weights = archive.read(largest)
    content[content.index(weights) + 5] ^= 1
    (tmp_path / "net.pt").write_bytes(content)
    with pytest.raises(WeightsFormatError, match="CRC"):
        read_torchscript(tmp_path / "net.pt")


def test_members_are_missing_too_short_or_too_long(genuine: Path) -> None:
    for change, message in (
        (lambda name, content: None if name == "data/3" else content, "lacks its member 'data/3'"),
        (lambda name, content: content[:-4] if name == "data/0" else content, "is damaged: member 'data/0' has"),
        (lambda name, content: content + b"1234" if name == "data/0" else content, "is damaged: member 'data/0' has"),
        (lambda name, content: None if name == "data.pkl" else content, "holds 0 lists of its content"),
        (lambda name, content: content[:-1] if name == "data.pkl" else content, "cannot be read as TorchScript"),
        (lambda name, content: b"" if name == "data.pkl" else content, "cannot be read as TorchScript"),
        (lambda name, content: b"x" if name == "data.pkl" else content, "cannot be read as TorchScript"),
        (lambda name, content: b"big" if name == "byteorder" else content, "big-endian"),
    ):
        with pytest.raises(WeightsFormatError, match=message):
            read_torchscript(rewritten(genuine, change))


@pytest.mark.parametrize("member", ["data/0", "data.pkl"])
def test_members_with_weights_may_not_be_packed(genuine: Path, member: str) -> None:
    packed = rewritten(genuine, lambda _name, content: content, compress=member)
    with pytest.raises(WeightsFormatError, match=f"its member '{member}' is compressed"):
        read_torchscript(packed)


def test_code_is_not_even_read(genuine: Path) -> None:
    """Neither a bomb nor nonsense in it matters; torch packs its code."""
    bomb = rewritten(
        genuine, lambda name, content: b"\0" * 10**6 if name.startswith("code/") else content, compress="/code/"
    )
    assert bomb.stat().st_size < 10**5
    assert list(read_torchscript(bomb)) == list(read_torchscript(genuine))


def test_an_older_archive_that_does_not_state_its_byte_order_is_read(genuine: Path) -> None:
    older = rewritten(genuine, lambda name, content: None if name == "byteorder" else content)
    assert list(read_torchscript(older)) == list(read_torchscript(genuine))


def test_members_of_one_name_are_refused(genuine: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(genuine.read_bytes())
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("net/data/0", b"other")
    with pytest.raises(WeightsFormatError, match="two members of one name"):
        read_torchscript(path)


def test_members_that_overlap_are_refused(genuine: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(genuine.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        twin = max((each for each in archive.infolist() if "/data/" in each.filename), key=lambda i: i.file_size)
        for each in range(2000):
            other = zipfile.ZipInfo(f"net/data/more{each}")
            for field in ("header_offset", "file_size", "compress_size", "CRC", "compress_type"):
                setattr(other, field, getattr(twin, field))
            archive.filelist.append(other)
            archive.NameToInfo[other.filename] = other
        archive._didModify = True
    with pytest.raises(WeightsFormatError, match="overlap"):
        read_torchscript(path)


# -- archives that somebody else writes ------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def row(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def name(module: str, what: str) -> bytes:
    return f"c{module}\n{what}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + row(*arguments) + b"R"


def table(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def module(kind: str = "Net", **attributes: bytes) -> bytes:
    return name("__torch__", kind) + b")\x81" + table(**attributes) + b"b"


def storage(numel: int, key: str = "0", kind: str = "FloatStorage") -> bytes:
    return row(text("storage"), name("torch", kind), text(key), text("cpu"), number(numel)) + b"Q"


ORDERED = name("collections", "OrderedDict") + b")R"


def tensor(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, numbers: bytes | None = None) -> bytes:
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        storage(12) if numbers is None else numbers,
        number(offset),
        row(*map(number, shape)),
        row(*map(number, strides)),
        b"\x89",
        ORDERED,
    )


GOOD = tensor((3, 4), (4, 1))


def crafted(tmp_path: Path, root: bytes, **members: bytes) -> Path:
    """An archive of the form of torch's, with twelve floats in ``data/0``."""
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", b"\x80\x02" + root + b".")
        archive.writestr("net/data/0", struct.pack("<12f", *range(12)))
        archive.writestr("net/constants.pkl", b"\x80\x02).")
        archive.writestr("net/code/__torch__.py", "class Net(Module):\n  pass\n")
        for key, content in members.items():
            archive.writestr(f"net/{key}", content)
    return path


def test_the_crafted_archives_are_right_where_nothing_is_wrong_with_them(tmp_path: Path) -> None:
    inner = module("Inner", bias=tensor((), (), 7), weight=tensor((2, 2), (1, 4), 1))
    found = read_torchscript(crafted(tmp_path, module(weight=GOOD, training=b"\x88", inner=inner)))
    assert torch.equal(found["weight"], torch.arange(12.0).reshape(3, 4))
    assert torch.equal(found["inner.bias"], torch.tensor(7.0))
    assert torch.equal(found["inner.weight"], torch.tensor([[1.0, 5.0], [2.0, 6.0]]))


def global_reduce(target: Path) -> bytes:
    return call(name("os", "system"), text(f"touch {target}"))


def global_in_a_module(target: Path) -> bytes:
    return module(weight=GOOD, evil=global_reduce(target))


def through_reduce(target: Path) -> bytes:
    """As a real attacker would: pickled by Python, of a class whose ``__reduce__`` names a function."""

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {target}",)

    return pickle.dumps(Evil(), protocol=2)[2:-1]


def through_builtins(target: Path) -> bytes:
    code = f"open({str(target)!r}, 'w').close()"
    return module(weight=GOOD, evil=call(name("builtins", "eval"), text(code)))


def through_torch(target: Path) -> bytes:
    return module(weight=GOOD, evil=call(name("torch.serialization", "load"), text(str(target))))


def through_the_program(target: Path) -> bytes:
    """A class of the program's that is called: here it is a member of an enumeration, of which nothing is made."""
    return module(weight=GOOD, evil=call(name("__torch__.os", "system"), text(f"touch {target}")))


def through_an_old_class(target: Path) -> bytes:
    return b"(" + text(f"touch {target}") + b"ios\nsystem\n"


def through_the_stack(target: Path) -> bytes:
    return name("os", "system") + b"\x93" + row(text(f"touch {target}")) + b"R"


def through_dots(target: Path) -> bytes:
    return call(name("__torch__x.os", "system"), text(f"touch {target}"))


@pytest.mark.parametrize(
    "attack",
    [
        global_reduce, global_in_a_module, through_reduce, through_builtins, through_torch, through_an_old_class,
        through_the_stack, through_dots,
    ],
)  # fmt: skip
@pytest.mark.parametrize("read", [read_torchscript, weight_formats.read_state_dict])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, attack, read) -> None:
    target = tmp_path / "owned"
    path = crafted(tmp_path, attack(target))
    with pytest.raises(WeightsFormatError, match="is refused"):
        read(path)
    assert not target.exists()


def test_the_attack_would_have_worked_on_the_real_unpickler(tmp_path: Path) -> None:
    """So that the test above tests something."""
    target = tmp_path / "owned"
    pickle.loads(b"\x80\x02" + through_reduce(target) + b".")
    assert target.exists()


def test_what_the_program_calls_is_not_called(tmp_path: Path) -> None:
    target = tmp_path / "owned"
    assert list(read_torchscript(crafted(tmp_path, through_the_program(target)))) == ["weight"]
    assert not target.exists()


def test_attributes_change_nothing_but_the_archives_own_records(tmp_path: Path) -> None:
    """BUILD on a function, which in Python would set attributes on it, even its code."""
    before = vars(torchscript_reader._Tensor).copy()
    for target in (name("torch._utils", "_rebuild_tensor_v2"), ORDERED, GOOD, name("__torch__", "Net"), b"]"):
        evil = target + table(__class__=text("x"), __code__=text("x"), __setstate__=text("x")) + b"b"
        with pytest.raises(WeightsFormatError, match="fills a module twice, or something that is none"):
            read_torchscript(crafted(tmp_path, module(weight=GOOD, evil=evil)))
    assert vars(torchscript_reader._Tensor) == before


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (tensor((3, 4), (4, 1)), "holds no module"),
        (text("hello"), "holds no module"),
        (module(), "holds no tensors"),
        (module(weight=b"]" + GOOD + b"a"), "holds no tensors"),
        (module(weight=tensor((3, 5), (5, 1))), "larger than its numbers: 'weight'"),
        (module(weight=tensor((3, 4), (4, 1), 1)), "larger than its numbers"),
        (module(weight=tensor((2, 2), (11, 1))), "larger than its numbers"),
        (module(weight=tensor((100, 100), (0, 0))), "larger than its numbers"),
        (module(weight=tensor((2**39,), (0,))), "larger than its numbers"),
        (module(weight=tensor((0, 4), (4, 1), 13)), "larger than its numbers"),
        (module(weight=tensor((2**39, 2**39), (1, 1))), "in an unknown way"),
        (module(weight=tensor((0, 2**62), (1, 1))), "in an unknown way"),
        (module(weight=tensor((0, 2**39, 2**39), (1, 1, 1))), "in an unknown way"),
        (module(weight=tensor((2**1000,), (1,))), "in an unknown way"),
        (module(weight=tensor((-3, -4), (4, 1))), "in an unknown way"),
        (module(weight=tensor((3, 4), (-4, 1))), "in an unknown way"),
        (module(weight=tensor((3, 4), (4, 1), -1)), "in an unknown way"),
        (module(weight=tensor((3, 4), (4,))), "in an unknown way"),
        (module(weight=tensor((1,) * 65, (1,) * 65)), "in an unknown way"),
        (module(weight=tensor((3, 4), (4, 1), numbers=text("0"))), "in an unknown way"),
        (module(weight=tensor((3, 4), (4, 1), numbers=storage(10**12))), "has 48 bytes, not 1000000000000 numbers"),
        (module(weight=tensor((3, 2), (2, 1), numbers=storage(6))), "has 48 bytes, not 6 numbers"),
        (module(weight=tensor((3, 2), (2, 1), numbers=storage(12, kind="HalfStorage"))), "has 48 bytes"),
        (module(weight=tensor((3, 4), (4, 1), numbers=storage(12, kind="QInt8Storage"))), "names torch.QInt8Storage"),
        (module(weight=tensor((3, 4), (4, 1), numbers=storage(12, kind="ComplexFloatStorage"))), "names torch.Complex"),
        (module(weight=tensor((3, 4), (4, 1), numbers=storage(-12))), "numbers of an unknown type"),
        (module(weight=text("x") + b"Q"), "numbers of an unknown type"),
        (module(weight=tensor((3, 4), (4, 1), numbers=storage(12, "../../0"))), r"lacks its member 'data/\.\./\.\./0'"),
        (module(weight=tensor((3, 4), (4, 1), numbers=storage(12, "/etc/passwd"))), "lacks its member"),
        (module(weight=tensor((3, 4), (4, 1), numbers=storage(12, "9"))), "lacks its member 'data/9'"),
        (module(weight=call(name("torch._utils", "_rebuild_qtensor"), text("x"))), r"names torch\._utils\._rebuild_q"),
        (module(weight=call(name("collections", "OrderedDict"), text("x"))), "calls OrderedDict"),
        (module(weight=call(text("x"), text("y"))), "calls something that is no function"),
        (module(weight=name("collections", "OrderedDict") + b"]R"), "calls something that is no function"),
        (name("__torch__", "Net") + b")\x81" + row(GOOD) + b"b", "quantised, or packed"),
        (name("__torch__", "Net") + b")\x81}" + number(1) + GOOD + b"sb", "quantised, or packed"),
        (name("__torch__", "Net") + row(text("x")) + b"\x81}b", "makes something that is no module"),
        (name("collections", "OrderedDict") + b")\x81}b", "makes something that is no module"),
        (module(weight=GOOD) + table(weight=GOOD) + b"b", "fills a module twice"),
        (b"}(" + text("a") + GOOD + text("a") + GOOD + b"u", "has a key twice"),
        (b"}(" + text("a") + b"u", "neither a list nor a dictionary"),
        (b"}(" + row() + GOOD + b"u", "has a key twice, or one that is"),
        (b")(" + text("a") + GOOD + b"u", "neither a list nor a dictionary"),
        (b"}(" + text("a") + b"e", "neither a list nor a dictionary"),
        (module(**{"a.weight": GOOD, "a": module(weight=GOOD)}), r"names two tensors 'a\.weight'"),
        (module(**{"x" * 501: GOOD}), "nested without end"),
        (b"0", "uses the instruction POP"),
        (b"N2", "uses the instruction DUP"),
        (b"\x8c\x01x", "uses the instruction SHORT_BINUNICODE"),
        (b"\x82\x01", "uses the instruction EXT1"),
        (b"R", "cannot be read"),
        (b"t", "cannot be read"),
        (b"h\x05", "cannot be read"),
        (b"", "cannot be read"),
        (b"X\xff\xff\xff\x7fabc", "cannot be read"),
    ],
)  # fmt: skip
def test_a_list_of_tensors_that_torch_did_not_write_is_refused(tmp_path: Path, root: bytes, message: str) -> None:
    path = crafted(tmp_path, root)
    with pytest.raises(WeightsFormatError, match=message) as caught:
        read_torchscript(path)
    assert caught.value.hint
    assert len(caught.value.message) < 300


def test_no_memory_is_asked_for_before_the_bytes_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    for function in ("frombuffer", "as_strided", "empty"):
        monkeypatch.setattr(torch, function, lambda *arguments, **_options: asked.append(arguments))
    path = crafted(tmp_path, module(weight=tensor((10**9,), (1,), numbers=storage(10**9, "9"))))
    with pytest.raises(WeightsFormatError, match="lacks its member"):
        read_torchscript(path)
    assert not asked


def test_a_module_that_holds_itself_is_refused(tmp_path: Path) -> None:
    itself = name("__torch__", "Net") + b")\x81q\x00" + table(weight=GOOD, me=b"h\x00") + b"b"
    with pytest.raises(WeightsFormatError, match="nested without end"):
        read_torchscript(crafted(tmp_path, itself))


def test_modules_that_double_at_each_level_are_refused(tmp_path: Path) -> None:
    """2^60 names from 60 modules."""
    root = module(weight=GOOD) + b"q\x00"
    for level in range(1, 60):
        below = b"h" + bytes([level - 1])
        root += module(a=below, b=below) + b"q" + bytes([level])
    with pytest.raises(WeightsFormatError, match="nested without end"):
        read_torchscript(crafted(tmp_path, root))


def test_many_names_for_the_same_few_numbers_are_refused(tmp_path: Path) -> None:
    """Small on disk, large when each is copied."""
    floats = 10_000
    shared = tensor((floats,), (1,), numbers=storage(floats, "9")) + b"q\x00"
    names = {f"w{each}": b"h\x00" for each in range(30)}
    path = crafted(tmp_path, module(first=shared, **names), **{"data/9": b"\0" * 4 * floats})
    with pytest.raises(WeightsFormatError, match="share the same few bytes"):
        read_torchscript(path)


def test_tensors_may_share_their_numbers(tmp_path: Path) -> None:
    shared = storage(12) + b"q\x00"
    path = crafted(
        tmp_path,
        module(
            a=tensor((12,), (1,), numbers=shared),
            b=tensor((6,), (1,), 6, numbers=b"h\x00"),
            c=tensor((12,), (1,), numbers=storage(12, kind="IntStorage")),
        ),
    )
    found = read_torchscript(path)
    assert found["b"].data_ptr() == found["a"].data_ptr() + 24
    assert found["c"].dtype == torch.int32
    assert torch.equal(found["c"].view(torch.float32), found["a"])


def test_a_list_longer_than_any_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchscript_reader, "MAX_PICKLE_BYTES", 1000)
    with pytest.raises(WeightsFormatError, match=r"its member 'data\.pkl' has \d+ bytes"):
        read_torchscript(crafted(tmp_path, module(weight=GOOD, note=text("x" * 1000))))


def test_deep_nesting_ends_neither_the_stack_nor_the_process(tmp_path: Path) -> None:
    deep = 200 * sys.getrecursionlimit()
    tuples = b")" + b"\x85" * deep
    assert list(read_torchscript(crafted(tmp_path, module(weight=GOOD, deep=tuples)))) == ["weight"]
    modules = b"".join(name("__torch__", "N") + b")\x81}" + text("m") for _ in range(2000))
    with pytest.raises(WeightsFormatError, match="nested without end"):
        read_torchscript(crafted(tmp_path, modules + GOOD + b"sb" * 2000))


def test_two_lists_of_content_are_refused(tmp_path: Path) -> None:
    path = crafted(tmp_path, module(weight=GOOD))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", b"\x80\x02.")
    with pytest.raises(WeightsFormatError, match="holds 2 lists"):
        read_torchscript(path)


def test_nothing_is_written_whatever_members_are_called(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    path = crafted(folder, module(weight=GOOD), **{"../../evil": b"x", "data/../../../evil": b"x"})
    before = sorted(tmp_path.rglob("*"))
    assert list(read_torchscript(path)) == ["weight"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_checkpoint_is_no_torchscript() -> None:
    assert not torchscript_reader.is_torchscript(["net/data.pkl", "net/data/0", "net/version", "net/byteorder"])
    assert torchscript_reader.is_torchscript(["net/data.pkl", "net/constants.pkl"])
    assert torchscript_reader.is_torchscript(["net/code/__torch__.py"])
