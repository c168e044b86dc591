"""Take the tensors out of a TorchScript archive, and nothing else.

Such an archive is a program: the published LaMa, for one, is a traced network with its code. Here no code is run, nor
even looked at. Of the archive only ``data.pkl`` is read, which says what is where, ``byteorder``, and the tensors'
bytes under ``data/``. That pickle is not unpickled either: `_Machine` follows the few instructions that torch writes,
and makes plain records of them. It has nothing that it could call, or set an attribute of.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import WeightsFormatError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import torch

MAX_PICKLE_BYTES = 4 * 2**20
"""Of ``data.pkl``; LaMa's, with 989 tensors, has 135 kB."""

MAX_SIDE = 2**40
MAX_NAMES = 100_000
MAX_NAME_LENGTH = 500
MAX_SHARING = 4
"""How many times the file's size all tensors together may be: names may share tensors, but not without end."""

_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
_LISTS = frozenset(("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag"))
"""Of ``torch.jit._pickle``: what returns its first argument, only of a narrower type."""


def is_torchscript(members: Iterable[str]) -> bool:
    """Whether a zip archive with members of these names is TorchScript."""
    return any("/code/" in name or name.endswith("/constants.pkl") for name in members)


def read_torchscript(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a TorchScript archive, by the names that its ``state_dict`` would give them.

    Tensors that are neither parameters nor buffers but plain attributes of a module come too: only the code knows
    which those are. Tensors inside lists and dictionaries do not.

    Returns:
        Tensors on the CPU, wherever they were when saved; those that shared memory still do.
    Raises:
        WeightsFormatError: unreadable, damaged, hostile, or without a module.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = _Records(archive, path)
            root = _Machine(path).run(records.read("data.pkl", limit=MAX_PICKLE_BYTES))
            return {name: records.tensor(tensor, name) for name, tensor in _named(root, path).items()}
    # What a damaged archive makes zipfile and pickletools raise is not documented.
    except (
        zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, LookupError, MemoryError, OverflowError,
    ) as error:  # fmt: skip
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _refused(path, f"cannot be read as TorchScript: {reason}") from error


def _refused(
    path: Path, why: str, hint: str = "If the file is damaged, delete it and get it again."
) -> WeightsFormatError:
    return WeightsFormatError(f"{path.name} {why}", hint=hint, path=str(path))


# -- the bytes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Storage:
    """Numbers of one type in one member of the archive."""

    dtype: str
    key: str
    numel: int


@dataclass(frozen=True, eq=False)
class _Tensor:
    """A view of a storage, in elements; the numbers are only what the file says."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Records:
    """The members of an archive that hold data, none larger than it says, nor all of them than the file."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.archive, self.path = archive, path
        self.size_bytes = path.stat().st_size
        self._buffers: dict[str, torch.Tensor] = {}
        self._shared_bytes = 0
        members = archive.infolist()
        roots = [each.filename[: -len("data.pkl")] for each in members if _is_root(each.filename)]
        if len(roots) != 1:
            raise _refused(path, f"is no TorchScript archive: it holds {len(roots)} lists of its content")
        # Never paths: a key out of the pickle is looked up here, or is not there.
        inside = [each for each in members if each.filename.startswith(roots[0])]
        self._members = {each.filename[len(roots[0]) :]: each for each in inside}
        if len(self._members) != len(inside):
            raise _refused(path, "holds two members of one name")
        # Code is packed, and not read; the rest is stored as it is.
        claimed = sum(each.file_size for name, each in self._members.items() if name.startswith("data"))
        if claimed > self.size_bytes:
            raise _refused(path, "is no TorchScript archive: its members overlap")
        if "byteorder" in self._members and self.read("byteorder", limit=16) != b"little":
            raise _refused(path, "was written on a big-endian machine, which is not supported")

    def read(self, name: str, *, limit: int) -> bytes:
        """The bytes of one member, which is stored as it is and whole."""
        info = self._members.get(name)
        if info is None:
            raise _refused(self.path, f"lacks its member {name[:80]!r}")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise _refused(self.path, f"is no TorchScript archive: its member {name[:80]!r} is compressed")
        if info.file_size > limit:
            raise _refused(self.path, f"is refused: its member {name[:80]!r} has {info.file_size} bytes")
        return self.archive.read(info)  # by its entry, and with its checksum

    def tensor(self, tensor: _Tensor, name: str) -> torch.Tensor:
        """Build one tensor, once it is known that its bytes are there."""
        import torch

        numel = math.prod(tensor.shape)
        last = sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True))
        within = tensor.offset + last < tensor.storage.numel if numel else tensor.offset <= tensor.storage.numel
        # More elements than the storage has would be copies of each other, such as a view can claim without end.
        if not within or numel > tensor.storage.numel:
            raise _refused(self.path, f"holds a tensor larger than its numbers: {name!r}")
        numbers = self._numbers(tensor.storage)
        self._shared_bytes += numel * numbers.element_size()
        if self._shared_bytes > MAX_SHARING * self.size_bytes:
            raise _refused(self.path, "is refused: its tensors share the same few bytes")
        return torch.as_strided(numbers, tensor.shape, tensor.strides, tensor.offset)

    def _numbers(self, storage: _Storage) -> torch.Tensor:
        import torch

        dtype: torch.dtype = getattr(torch, storage.dtype)
        if storage.key not in self._buffers:
            read = bytearray(self.read(f"data/{storage.key}", limit=self.size_bytes))
            self._buffers[storage.key] = torch.frombuffer(read, dtype=torch.uint8) if read else torch.empty(0).byte()
        buffer = self._buffers[storage.key]
        if buffer.numel() != storage.numel * dtype.itemsize:
            raise _refused(
                self.path,
                f"is damaged: member 'data/{storage.key[:40]}' has {buffer.numel()} bytes, not {storage.numel} numbers",
            )
        return buffer.view(dtype)


def _is_root(name: str) -> bool:
    return name.endswith("/data.pkl") and name.count("/") == 1


# -- the list of what is where ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Name:
    """A class or function that the pickle names; here no more than its name."""

    module: str
    name: str

    @property
    def of_program(self) -> bool:
        """Whether it is a class that the archive's own code defines."""
        return self.module == "__torch__" or self.module.startswith("__torch__.")


@dataclass(eq=False)
class _Object:
    """An instance of one of the program's classes: a module, mostly."""

    attributes: dict[str, Any]
    built: bool = False


_REBUILD = _Name("torch._utils", "_rebuild_tensor_v2")
_ORDERED = _Name("collections", "OrderedDict")
_DEVICE = _Name("torch", "device")

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = frozenset(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"))
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """Follows a pickle of the kind that TorchScript writes; every other instruction, and every other name, is refused.

    Source: torch/csrc/jit/serialization/pickler.cpp, and the pickletools module for what the instructions mean.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, pickle: bytes) -> Any:
        """What the pickle describes, of records, numbers, text, lists, tuples and dictionaries."""
        for opcode, argument, _ in pickletools.genops(pickle):
            if opcode.name == "STOP":
                return self.stack.pop()
            self._step(opcode.name, argument)
        raise _refused(self.path, "is cut short")

    def _step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in _LITERALS:
            stack.append(argument)
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in {"BINPUT", "LONG_BINPUT"}:
            self.memo[argument] = stack[-1]
        elif opcode in {"BINGET", "LONG_BINGET"}:
            stack.append(self.memo[argument])
        elif opcode == "MARK":
            self.marked.append(stack)
            self.stack = []
        elif opcode == "TUPLE":
            items = self._since_mark()
            self.stack.append(tuple(items))
        elif opcode in _SHORT_TUPLES:
            count = _SHORT_TUPLES[opcode]
            items = [stack.pop() for _ in range(count)]
            stack.append(tuple(reversed(items)))
        elif opcode == "EMPTY_DICT":
            stack.append({})
        elif opcode == "EMPTY_LIST":
            stack.append([])
        elif opcode in {"SETITEMS", "APPENDS"}:
            items = self._since_mark()
            self._extend(opcode, self.stack[-1], items)
        elif opcode == "SETITEM":
            items = [stack.pop(), stack.pop()]
            self._extend("SETITEMS", stack[-1], items[::-1])
        elif opcode == "APPEND":
            items = [stack.pop()]
            self._extend("APPENDS", stack[-1], items)
        elif opcode == "GLOBAL":
            stack.append(self._name(argument))
        elif opcode == "NEWOBJ":
            arguments, kind = stack.pop(), stack.pop()
            if arguments != () or not isinstance(kind, _Name) or not kind.of_program:
                raise self._unlike_torch("makes something that is no module")
            stack.append(_Object({}))
        elif opcode == "BUILD":
            self._build(stack.pop(), stack[-1])
        elif opcode == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif opcode == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._reduce(function, arguments))
        elif opcode != "PROTO":
            raise self._unlike_torch(f"uses the instruction {opcode}")

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def _extend(self, opcode: str, target: Any, items: list[Any]) -> None:
        if opcode == "APPENDS" and isinstance(target, list):
            target.extend(items)
            return
        if opcode == "APPENDS" or not isinstance(target, dict) or len(items) % 2:
            raise self._unlike_torch("fills something that is neither a list nor a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int, float)) or key in target:
                raise self._unlike_torch("has a key twice, or one that is neither text nor number")
            target[key] = value

    def _name(self, both: str) -> _Name:
        name = _Name(*both.split(" ", 1))
        known = name in {_REBUILD, _ORDERED, _DEVICE}
        if name.module == "torch":
            known = known or name.name in _STORAGES
        elif name.module == "torch.jit._pickle":
            known = name.name in _LISTS
        if not known and not name.of_program:
            shown = f"{name.module}.{name.name}"[:80]
            raise _refused(
                self.path,
                f"is refused: it names {shown}, which is no part of a network's weights, and may carry code",
                hint="Delete it, and get it again from where its publisher has it, as safetensors if there is one.",
            )
        return name

    def _build(self, state: Any, target: Any) -> None:
        if not isinstance(target, _Object) or target.built:
            raise self._unlike_torch("fills a module twice, or something that is none")
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise self._unlike_torch("keeps weights in a form of its own: it is quantised, or packed")
        target.attributes, target.built = state, True

    def _storage(self, description: Any) -> _Storage:
        match description:
            case ("storage", _Name(module="torch", name=kind), str(key), str(), int(numel)) if kind in _STORAGES:
                if numel >= 0:
                    return _Storage(_STORAGES[kind], key, numel)
        raise self._unlike_torch("describes numbers of an unknown type")

    def _reduce(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise self._unlike_torch("calls something that is no function")
        if function == _REBUILD:
            match arguments:
                case (_Storage() as storage, offset, tuple(shape), tuple(strides), bool(), dict()):
                    if _is_layout(offset, shape, strides):
                        return _Tensor(storage, offset, shape, strides)
            raise self._unlike_torch("describes a tensor in an unknown way")
        if function == _ORDERED and arguments == ():
            return {}
        if function.module == "torch.jit._pickle" and arguments:
            return arguments[0]
        if function == _DEVICE or function.of_program:  # a member of an enumeration
            return None
        raise self._unlike_torch(f"calls {function.name[:40]}")

    def _unlike_torch(self, what: str) -> WeightsFormatError:
        return _refused(self.path, f"is refused: its list of tensors {what}, which is not what TorchScript writes")


def _is_layout(offset: Any, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> bool:
    """Whether these can be numbers of a tensor, and none is too large for torch to multiply them in 64 bits."""
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > 64:
        return False
    if not all(type(each) is int and 0 <= each < MAX_SIDE for each in numbers):
        return False
    # Of empty tensors too, whose other sides can be anything.
    return bool(math.prod(max(side, 1) for side in shape) < MAX_SIDE)


def _named(root: Any, path: Path) -> dict[str, _Tensor]:
    """The tensors of a module and of those inside it, by their paths, in the order in which torch lists them."""
    if not isinstance(root, _Object):
        raise _refused(path, "is refused: it holds no module")
    found: dict[str, _Tensor] = {}
    pending, visited = [("", root)], 0
    while pending:
        prefix, module = pending.pop()
        visited += 1
        inner = []
        for name, value in module.attributes.items():
            full = f"{prefix}{name}"
            # A module that holds itself has paths without end.
            if len(full) > MAX_NAME_LENGTH or len(found) + len(pending) + visited > MAX_NAMES:
                raise _refused(path, "is refused: its modules are nested without end")
            if isinstance(value, _Object):
                inner.append((f"{full}.", value))
            elif isinstance(value, _Tensor):
                if full in found:
                    raise _refused(path, f"names two tensors {full[:80]!r}")
                found[full] = value
        pending.extend(reversed(inner))
    if not found:
        raise _refused(path, "holds no tensors")
    return found
