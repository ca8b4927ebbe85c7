"""Strangers' checkpoints: every tensor comes back with its bits, and nothing that the file asks for is done."""

import contextlib
import io
import os
import pickle
import shlex
import struct
import sys
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from embedx.extractors import _inert
from embedx.extractors._weights import open_weights, read_weights

FORMATS = ("zip", "sequence")
DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.uint16, torch.float8_e4m3fn,
)  # fmt: skip


def bits(tensor):
    return tensor.detach().contiguous().flatten().view(torch.uint8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=4),
    dtypes=st.lists(st.sampled_from(DTYPES), min_size=4, max_size=4),
    kind=st.sampled_from(FORMATS),
    wrapper=st.sampled_from(["", "state_dict", "model"]),
    parameter=st.booleans(),
)
def test_what_torch_saved_comes_back_bit_by_bit(tmp_path, shapes, dtypes, kind, wrapper, parameter):
    state = {}
    for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=False)):
        whole = torch.randint(0, 2, (*shape, 3)).to(dtype)
        state |= {f"{i}.whole": whole, f"{i}.view": whole[..., 1:], f"{i}.turned": whole.movedim(-1, 0)}
    if parameter:
        state["p"] = torch.nn.Parameter(torch.randn(2, 3))
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "x.pt",
               _use_new_zipfile_serialization=kind == "zip")  # fmt: skip
    opened = open_weights(tmp_path / "x.pt")
    assert (opened.inert, opened.wrappers) == ((), (wrapper,) if wrapper else ())
    assert opened.beside == (("epoch",) if wrapper else ())
    assert opened.state.keys() == state.keys()
    for name, tensor in opened.state.items():
        assert (tensor.dtype, tensor.shape) == (state[name].dtype, state[name].shape)
        assert torch.equal(bits(tensor), bits(state[name]))
        if name.endswith("view") and tensor.numel():
            partner = opened.state[name.replace("view", "whole")]
            assert tensor.untyped_storage().data_ptr() == partner.untyped_storage().data_ptr()


def text(value):
    return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    return pickle.LONG1 + bytes([9]) + value.to_bytes(9, "little", signed=True)


def numbers(*values):
    return b"(" + b"".join(map(number, values)) + b"t"


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def call(function, *arguments):
    return function + b"(" + b"".join(arguments) + b"tR"


def tensor(offset=0, size=(2,), stride=(1,), count=2, key="0", kind="FloatStorage"):
    """The instructions for a tensor, true to the bytes that `write` stores unless told otherwise."""
    storage = b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(count) + b"tQ"
    rest = numbers(*size) + numbers(*stride) + b"\x89" + call(name("collections", "OrderedDict"))
    return call(name("torch._utils", "_rebuild_tensor_v2"), storage, number(offset), rest)


def write(path, kind, evil=b"N", weight=None, compression=zipfile.ZIP_STORED):
    """A checkpoint {"state_dict": {"w": a tensor}, "evil": whatever the instructions `evil` make}."""
    weight = tensor() if weight is None else weight
    data = struct.pack("<2f", 1.5, -2)
    entries = text("evil") + evil + text("state_dict") + b"}" + text("w") + weight + b"s"
    program = b"\x80\x04}(" + entries + b"u."
    if kind == "zip":
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("x/data.pkl", program)
            archive.writestr("x/data/0", data)
            archive.writestr("../../traversed", b"a name that climbs out of its folder")
        return path
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": sys.byteorder == "little"}]
    parts = [*(pickle.dumps(h, 2) for h in head), program, pickle.dumps(["0"], 2), struct.pack("<q", 2), data]
    path.write_bytes(b"".join(parts))
    return path


class Victim:
    """Something that a pickle can build upon."""


def hostile(folder):
    """{name: instructions that leave the file `canary` when a plain unpickler follows them}."""
    canary = folder / "canary"
    command, line = text(f"touch {shlex.quote(str(canary))}"), text(f"open({str(canary)!r}, 'w').close()")
    system = name("posix", "system")
    module = call(name("importlib", "import_module"), text("os"))
    inner = io.BytesIO()
    torch.save(Reducer(os.system, f"touch {shlex.quote(str(canary))}"), inner)
    nested = b"B" + struct.pack("<I", len(inner.getvalue())) + inner.getvalue()
    np.save(
        folder / "x.npy",
        np.array([Reducer(os.system, f"touch {shlex.quote(str(canary))}")], dtype=object),
        allow_pickle=True,
    )
    (folder / "embedx_test_module_that_acts.py").write_text(f"open({str(canary)!r}, 'w').close()")
    me = name(__name__, "Victim")
    return {
        "os.system": call(system, command),
        "eval": call(name("builtins", "eval"), line),
        "exec": call(name("builtins", "exec"), line),
        "python 2 eval": call(name("__builtin__", "eval"), line),
        "getattr of import": call(
            call(name("builtins", "getattr"), call(name("builtins", "__import__"), text("os")), text("system")), command
        ),
        "subprocess": call(name("subprocess", "getoutput"), command),
        "partial": call(name("functools", "partial") + b"(" + system + command + b"t\x81"),
        "partial with keywords": call(name("functools", "partial") + b"(" + system + command + b"t}\x92"),
        "attrgetter": call(call(call(name("operator", "attrgetter"), text("system")), module), command),
        "methodcaller": call(call(name("operator", "methodcaller"), text("system"), command), module),
        "codecs": call(name("builtins", "exec"), call(name("codecs", "decode"), line, text("raw_unicode_escape"))),
        "map": call(name("builtins", "list"), call(name("builtins", "map"), system, b"](" + command + b"e")),
        "torch.load within": call(name("torch.storage", "_load_from_bytes"), nested),
        "torch's shell": call(name("torch.utils.collect_env", "run"), command),
        "numpy.load": call(name("numpy", "load"), text(str(folder / "x.npy")), b"N\x88"),
        "stack global": text("posix") + text("system") + b"\x93" + b"(" + command + b"tR",
        "dotted stack global": text("os") + text("path.os.system") + b"\x93" + b"(" + command + b"tR",
        "inst": b"(" + command + b"iposix\nsystem\n",
        "obj": b"(" + system + command + b"o",
        "build": me + b")\x81}" + text("__setstate__") + system + b"sb" + command + b"b",
        "append": me + b")\x81}" + text("append") + system + b"sb" + command + b"a",
        "mere import": name("embedx_test_module_that_acts", "x"),
        "under a tensor": call(name("torch._utils", "_rebuild_parameter"), call(system, command), b"\x89N"),
        "by tensor type": call(name("torch._tensor", "_rebuild_from_type_v2"), system, name("torch", "Tensor"),
                               b"(" + command + b"t", b"N"),
    }  # fmt: skip


class Reducer:
    def __init__(self, function, *arguments):
        self.made = (function, arguments)

    def __reduce__(self):
        return self.made


HOSTILE = (
    "os.system", "eval", "exec", "python 2 eval", "getattr of import", "subprocess", "partial", "partial with keywords",
    "attrgetter", "methodcaller", "codecs", "map", "torch.load within", "torch's shell", "numpy.load", "stack global",
    "dotted stack global", "inst", "obj", "build", "append", "mere import", "under a tensor", "by tensor type",
)  # fmt: skip


@pytest.mark.parametrize("attack", HOSTILE)
@pytest.mark.filterwarnings("ignore")  # what the attacks themselves give rise to
def test_a_plain_unpickler_would_act(tmp_path, monkeypatch, attack):
    """Without this the next test could pass on files that harm nobody."""
    monkeypatch.syspath_prepend(tmp_path)
    evil = hostile(tmp_path)[attack]
    for protocol in (b"\x80\x02", b"\x80\x04"):  # names of Python 2 and dotted names belong to different ones
        with contextlib.suppress(Exception):  # some end in an error after they have acted
            pickle.loads(protocol + evil + b".")
    sys.modules.pop("embedx_test_module_that_acts", None)
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_objects_are_not_made_and_the_tensors_come_back(tmp_path, monkeypatch, attack, kind):
    monkeypatch.syspath_prepend(tmp_path)
    evil = hostile(tmp_path)
    assert set(HOSTILE) == set(evil)
    opened = open_weights(write(tmp_path / "x.pt", kind, evil[attack]))
    assert opened.state["w"].tolist() == [1.5, -2]
    assert opened.inert
    with pytest.raises(ValueError, match="cannot be loaded as plain tensors|holds no state dict"):
        read_weights(write(tmp_path / "y.pt", kind, weight=evil[attack]))
    (tmp_path / "z.pt").write_bytes(b"\x80\x04" + evil[attack] + b".")
    with pytest.raises(ValueError, match="magic number"):
        read_weights(tmp_path / "z.pt")
    assert not (tmp_path / "canary").exists() and not (tmp_path.parent.parent / "traversed").exists()
    assert "embedx_test_module_that_acts" not in sys.modules


def pile(first, layer):
    """60 layers, each made of several references to the one below, of which only the last stays on the stack."""
    layers = [layer(b"h" + bytes([i - 1])) + b"q" + bytes([i]) + b"0" for i in range(1, 60)]
    return first + b"q\x000" + b"".join(layers) + b"h\x3b"


LAUGHS = pile(b"]", lambda below: b"](" + 8 * below + b"e")
PAIRS = pile(b")", lambda below: 2 * below + b"\x86")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "odd",
    {
        "laughs": LAUGHS,
        "keys that take for ever to hash": b"}" + PAIRS + b"Ns",
        "deep tuples as a key": b"}" + b")" + 200_000 * b"\x85" + b"Ns",
        "deep lists": 200_000 * b"]" + 199_999 * b"a",
        "a list that holds itself": b"]q\x00h\x00a",
        "a dict that holds itself": b"}q\x00" + text("a") + b"h\x00s",
        "an unhashable key": b"}]Ns",
        "a set": b"\x8f(]]\x90",
        "persistent module": b"(" + text("module") + name("os", "system") + text("a") + text("b") + b"tQ",
        "persistent text": b"Psomething\n",
        "extension": b"\x82\x07",
        "setting upon a name": name("os", "environ") + text("a") + text("b") + b"s",
        "state for a rebuilding function": name("torch._utils", "_rebuild_tensor_v2") + b"}" + text("a") + b"Nsb",
        "extending a text": text("a") + b"(NNe",
    }.items(),
    ids=lambda odd: odd[0],
)
def test_odd_objects_beside_the_weights_change_nothing(tmp_path, odd, kind):
    began = time.process_time()  # of the processor: others may be busy as well
    assert read_weights(write(tmp_path / "x.pt", kind, odd[1]))["w"].tolist() == [1.5, -2]
    assert time.process_time() - began < 20
    assert not hasattr(torch._utils._rebuild_tensor_v2, "a") and "a" not in os.environ


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (tensor(size=(1 << 40,)), "'w' of shape .* reaches outside its storage of 2 numbers"),
        (tensor(size=(3,)), "reaches outside"),
        (tensor(offset=1), "reaches outside"),
        (tensor(size=(1, 2), stride=(1, 2)), "reaches outside"),
        (tensor(size=(1 << 40,), stride=(0,)), "larger than the file can hold"),
        (tensor(size=(-1,)), "no shape that a tensor can have"),
        (tensor(offset=-1), "no shape"),
        (tensor(stride=(-1,)), "no shape"),
        (tensor(stride=()), "no shape"),
        (tensor(size=(1,) * 65, stride=(1,) * 65), "no shape"),
        (tensor(size=(1 << 62, 1 << 62)), "no shape"),
        (tensor(count=1 << 40), "storage"),
        (tensor(count=1 << 60), "storage"),
        (tensor(count=1), "storage '0'"),
        (tensor(kind="DoubleStorage"), "storage|truncated"),
        (tensor(key="../../../etc/passwd"), "storage"),
        (tensor(kind="system"), "holds no state dict .*torch.system|belongs to no tensor"),
        (name("torch._utils", "_rebuild_tensor_v2") + b")R", "holds no state dict|belongs to no tensor"),
        (b"\x8e" + struct.pack("<Q", 1 << 33), "expected 8589934592 bytes|damaged"),
        (b"\x8e" + struct.pack("<Q", 1 << 62), "expected|damaged"),
        (b"0" * 9, "damaged"),
        (b"h\x09", "damaged: KeyError"),
        (b"\xff", "at position"),
        (b"\x97", "buffers outside the file"),
        (b"I" + b"9" * 5000 + b"\n", "limit"),
    ],
)
def test_absurd_tensors_are_refused_without_the_memory_they_ask_for(tmp_path, weight, message, kind):
    write(tmp_path / "x.pt", kind, weight=weight)
    torch.zeros(1)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as caught:
            read_weights(tmp_path / "x.pt")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert str(tmp_path / "x.pt") in str(caught.value) and "\n" not in str(caught.value)


def test_more_instructions_than_any_checkpoint_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(_inert, "OPERATIONS", 10_000)
    assert read_weights(write(tmp_path / "x.pt", "zip", 4_000 * b"N0" + b"N"))["w"].tolist() == [1.5, -2]
    with pytest.raises(ValueError, match="more than 10,000 instructions"):
        read_weights(write(tmp_path / "x.pt", "zip", 5_000 * b"N0" + b"N"))


def test_archives_that_are_larger_inside_than_outside(tmp_path):
    write(tmp_path / "x.pt", "zip", text("a" * 50_000_000), compression=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "x.pt").stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(ValueError, match="'x/data.pkl' is compressed"):
        read_weights(tmp_path / "x.pt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
    # Many entries over the same bytes: each is as large as announced, together they are not.
    state = {f"w{i}": torch.full((1000,), float(i)) for i in range(50)}
    torch.save(state, tmp_path / "y.pt")
    with zipfile.ZipFile(tmp_path / "y.pt") as archive:
        entries = {e.filename: e for e in archive.infolist()}
        program = next(archive.read(n) for n in entries if n.endswith("data.pkl"))
    with zipfile.ZipFile(tmp_path / "z.pt", "w") as archive:
        archive.writestr("x/data.pkl", program)
        archive.writestr("x/data/0", bytes(4000))
        first = archive.getinfo("x/data/0")
        for i in range(1, 50):
            copy = zipfile.ZipInfo(f"x/data/{i}")
            copy.header_offset, copy.file_size, copy.compress_size, copy.CRC = (
                first.header_offset,
                4000,
                4000,
                first.CRC,
            )
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
    with pytest.raises(ValueError, match="its storages hold more than the .* bytes of the file"):
        read_weights(tmp_path / "z.pt")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_truncation_and_every_changed_byte_ends_in_tensors_or_one_line(tmp_path, kind):
    torch.save({"w": torch.arange(40.0)}, tmp_path / "x.pt", _use_new_zipfile_serialization=kind == "zip")
    whole = (tmp_path / "x.pt").read_bytes()
    cuts = [whole[:n] for n in range(0, len(whole), 23)]
    flips = [whole[:n] + bytes([whole[n] ^ 0x41]) + whole[n + 1 :] for n in range(0, len(whole), 7)]
    refused = 0
    for i, content in enumerate(cuts + flips):
        (tmp_path / "y.pt").write_bytes(content)
        try:
            found = read_weights(tmp_path / "y.pt")
            assert all(t.numel() <= 40 for t in found.values()) and i >= len(cuts)
            if kind == "zip":  # its entries have checksums
                assert list(found) == ["w"] and torch.equal(found["w"], torch.arange(40.0))
        except ValueError as error:
            assert str(tmp_path / "y.pt") in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > len(cuts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page, expected a checkpoint.*fetch the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (b"", "cannot be loaded as plain tensors"),
        (b"\0" * 257 + b"ustar" + b"\0" * 300, "tar format of torch 0.1 is not supported"),
        (pickle.dumps([1, 2]), "does not begin with torch's magic number"),
        (b"PK\x03\x04 and nothing else", "a truncated or damaged zip archive"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, content, message):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path / "x.pt")


def test_programs_foreign_bytes_odd_names_and_safetensors_by_any_name(tmp_path):
    for entry, message in (("x/constants.pkl", "a TorchScript program"), ("x/byteorder", "the other byte order")):
        write(tmp_path / "x.pt", "zip")
        with zipfile.ZipFile(tmp_path / "x.pt", "a") as archive:
            archive.writestr(entry, b"big" if sys.byteorder == "little" else b"little")
        with pytest.raises(ValueError, match=message):
            read_weights(tmp_path / "x.pt")
    torch.save({"a\x1b[31m": torch.ones(1)}, tmp_path / "y.pt")
    with pytest.raises(ValueError, match=r"called 'a\\x1b\[31m', expected names of printable characters"):
        read_weights(tmp_path / "y.pt")
    save_file({"w": torch.ones(1)}, tmp_path / "blob", {"a": "b"})
    assert (open_weights(tmp_path / "blob").format, open_weights(tmp_path / "blob").metadata) == (
        "safetensors",
        {"a": "b"},
    )
