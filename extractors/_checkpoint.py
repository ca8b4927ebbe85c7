"""Reading a stranger's torch checkpoint without executing anything: see `_inert` for how.

Tensors are made after the pickle was read, only those asked for, out of bytes whose number was checked against the
file. torch.load is not used, not even with `weights_only=True`: before torch 2.6 that could be made to run code, and
it still inflates compressed archives and believes any size.

Formats: the zip archive of torch 1.6 and later, and the sequence of pickles before it. What is neither, truncated,
compressed, larger inside than outside, or describes a tensor outside its storage, is a `ValueError`.
"""

from __future__ import annotations

import io
import math
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._inert import Described, Machine, Storage

if TYPE_CHECKING:
    import torch

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before torch 1.6
ALIASES = 16  # largest size of all tensors together, which may share storages, in sizes of the file


class _Clipped:
    """A file whose `read` allocates no more than the file holds, however much is asked for."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._size = file, size
        self.readline = file.readline

    def read(self, n: int, /) -> bytes:
        return self._file.read(min(n, self._size))


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """`content` with `Described` in the place of tensors; `inert`: names of what was not rebuilt."""

    format: str
    content: Any
    inert: tuple[str, ...]
    size: int
    bytes_of: Callable[[Storage, int], bytearray]

    def tensors(self, described: Mapping[str, Described]) -> dict[str, torch.Tensor]:
        """The tensors themselves; those that share a storage in the file share it again."""
        import torch

        storages: dict[str, bytearray] = {}
        out: dict[str, torch.Tensor] = {}
        held = total = 0
        for name, tensor in described.items():
            dtype = vars(torch).get(tensor.dtype)
            if not isinstance(dtype, torch.dtype):
                raise ValueError(f"{name!r} has the unknown type {tensor.dtype!r}")
            place = tensor.storage
            if place.key not in storages:
                nbytes = place.count * vars(torch)[place.dtype].itemsize
                held += nbytes
                if held > self.size:
                    raise ValueError(f"its storages hold more than the {self.size:,} bytes of the file")
                storages[place.key] = self.bytes_of(place, nbytes)
            count = len(storages[place.key]) // dtype.itemsize
            size, stride = _checked(name, tensor, count)
            total += (numel := math.prod(size)) * dtype.itemsize
            if numel * dtype.itemsize > self.size or total > ALIASES * self.size:
                raise ValueError(f"{name!r} of shape {size} is larger than the file can hold")
            if not numel:
                out[name] = torch.empty(size, dtype=dtype)
                continue
            flat = torch.frombuffer(storages[place.key], dtype=dtype, count=count)
            out[name] = torch.as_strided(flat, size, stride, tensor.offset)
        return out


def _checked(name: str, tensor: Described, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(size, stride) of a tensor that lies inside its storage of `count` numbers."""
    size, stride = tensor.size, tensor.stride
    whole = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= 64
    if not whole or any(type(v) is not int or not 0 <= v < 1 << 48 for v in (*size, *stride, tensor.offset)):
        raise ValueError(f"{name!r} has no shape that a tensor can have")
    reach = tensor.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and reach >= count:
        raise ValueError(f"{name!r} of shape {size} reaches outside its storage of {count:,} numbers")
    return size, stride


def load(path: Path) -> Checkpoint:
    """What `path` holds, tensors described but not yet read. Raises `ValueError` for what is no sound checkpoint."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    if head[257:262] == b"ustar":
        raise ValueError("the tar format of torch 0.1 is not supported")
    return _zip(path, size) if head.startswith(b"PK") else _sequence(path, size)


def _zip(path: Path, size: int) -> Checkpoint:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {e.filename: e for e in archive.infolist()}
    except zipfile.BadZipFile as error:
        raise ValueError(f"a truncated or damaged zip archive: {error}") from error
    roots = [n.removesuffix("data.pkl") for n in entries if n.endswith("/data.pkl") and n.count("/") == 1]
    if len(roots) != 1 or roots[0] + "constants.pkl" in entries:
        kind = "a TorchScript program" if roots else "a zip archive, but no torch checkpoint"
        raise ValueError(f"{kind}; only files of torch.save with tensors are read")
    if (order := entries.get(roots[0] + "byteorder")) and _entry(path, order, size).decode() != sys.byteorder:
        raise ValueError("written on a machine with the other byte order")
    machine = Machine()
    content = machine.run(io.BytesIO(_entry(path, entries[roots[0] + "data.pkl"], size)))

    def bytes_of(storage: Storage, nbytes: int) -> bytearray:
        entry = entries.get(f"{roots[0]}data/{storage.key}")
        if entry is None or entry.file_size != nbytes:
            amount = f"{entry.file_size:,} bytes" if entry else "nothing"
            raise ValueError(f"storage {storage.key!r} has {amount}, expected {nbytes:,} bytes")
        return _entry(path, entry, size)

    return Checkpoint("torch zip", content, tuple(machine.inert), size, bytes_of)


def _entry(path: Path, entry: zipfile.ZipInfo, size: int) -> bytearray:
    """One file of an archive, its checksum verified. A compressed one is refused: it could have any size."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
        raise ValueError(f"{entry.filename!r} is compressed or encrypted, which torch never does")
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)  # the lengths of name and extra field, which end the local header
        name, extra = struct.unpack("<HH", file.read(4))
        out = _exactly(file, entry.header_offset + 30 + name + extra, entry.file_size, size)
    if zlib.crc32(out) != entry.CRC:
        raise ValueError(f"{entry.filename!r} is damaged: its checksum does not fit")
    return out


def _exactly(file: Any, start: int, count: int, size: int) -> bytearray:
    if not 0 <= start <= start + count <= size:
        raise ValueError("truncated")
    out = bytearray(count)
    file.seek(start)
    if file.readinto(out) != count:
        raise ValueError("truncated")
    return out


def _sequence(path: Path, size: int) -> Checkpoint:
    """The format before torch 1.6: magic number, protocol, system, content, keys of the storages, the storages."""
    import torch

    machine = Machine()
    with path.open("rb") as file:
        clipped = _Clipped(file, size)
        if machine.run(clipped) != MAGIC or machine.run(clipped) != PROTOCOL:
            raise ValueError("no torch checkpoint: it does not begin with torch's magic number")
        if (machine.run(clipped) or {}).get("little_endian") is not (sys.byteorder == "little"):
            raise ValueError("written on a machine with the other byte order")
        content = machine.run(clipped)
        places: dict[str, tuple[int, int]] = {}
        keys = machine.run(clipped)
        at = file.tell()
        for key in keys:
            if (storage := machine.storages.get(key)) is None:
                raise ValueError(f"storage {key!r} belongs to no tensor")
            nbytes = storage.count * vars(torch)[storage.dtype].itemsize
            if struct.unpack("<q", _exactly(file, at, 8, size)) != (storage.count,):
                raise ValueError(f"storage {key!r} is not of the {storage.count:,} numbers announced")
            places[key] = (at + 8, nbytes)
            at += 8 + nbytes

    def bytes_of(storage: Storage, nbytes: int) -> bytearray:
        start, held = places.get(storage.key, (0, -1))
        if held != nbytes:
            raise ValueError(f"storage {storage.key!r} is not in the file with {nbytes:,} bytes")
        with path.open("rb") as file:
            return _exactly(file, start, nbytes, size)

    return Checkpoint("torch before 1.6", content, tuple(machine.inert), size, bytes_of)
