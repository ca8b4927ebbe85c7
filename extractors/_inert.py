"""An interpreter of pickles in which nothing can be called.

A pickle is a program for a small stack machine. `Machine` follows the instructions that build plain values and keeps
the name of a class or function as a mere name: "calling" one of the few that rebuild tensors gives a description of a
tensor, "calling" any other gives an `Inert` object. No module is imported and no method is run on the file's behalf.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any

OPERATIONS = 4_000_000  # a large checkpoint needs some 100,000; each may leave an object of about 200 bytes
MAPPINGS = {"collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict"}
TENSORS = {f"torch._utils._rebuild_tensor{v}" for v in ("", "_v2", "_v3")}
PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
WITH_TYPE = "torch._tensor._rebuild_from_type_v2"
STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128", "Untyped": "uint8",
}  # fmt: skip
KNOWN = {f"{m}.{n}Storage": t for m in ("torch", "torch.cuda", "torch.storage") for n, t in STORAGES.items()}
REBUILT = {*MAPPINGS, *TENSORS, *PARAMETERS, *KNOWN, WITH_TYPE, "torch.Size", "torch.Tensor"}
REBUILT |= {f"torch.{dtype}" for dtype in STORAGES.values()}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that the file names."""

    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Inert:
    """What stands where the file wanted an object of another kind than numbers, texts and tensors."""

    what: str


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """`count` numbers of type `dtype` that the file keeps under `key`."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """A tensor as the file describes it, unchecked."""

    storage: Storage
    offset: Any
    size: Any
    stride: Any
    dtype: str


class Machine:
    """Runs pickles one after the other; collects the storages referred to and the names that were left inert."""

    def __init__(self) -> None:
        self.inert: dict[str, None] = {}
        self.storages: dict[str, Storage] = {}
        self._left = OPERATIONS

    def run(self, stream: Any) -> Any:  # noqa: PLR0912, PLR0915 - one branch per instruction
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}

        def since_mark() -> list[Any]:
            items = stack[(at := marks.pop()) :]
            del stack[at:]
            return items

        argument: Any
        for operation, argument, _ in pickletools.genops(stream):
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"more than {OPERATIONS:,} instructions")
            match operation.name:
                case "BINGET" | "LONG_BINGET" | "GET":
                    stack.append(memo[int(argument)])
                case "BINPUT" | "LONG_BINPUT" | "PUT":
                    memo[int(argument)] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "MARK":
                    marks.append(len(stack))
                case "TUPLE":
                    stack.append(tuple(since_mark()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    n = int(operation.name[-1])
                    stack[-n:] = [tuple(stack[-n:])]
                case "EMPTY_LIST":
                    stack.append([])
                case "LIST":
                    stack.append(since_mark())
                case "EMPTY_DICT":
                    stack.append({})
                case "DICT":
                    stack.append(_pairs(since_mark()))
                case "APPEND" | "APPENDS":
                    items = [stack.pop()] if operation.name == "APPEND" else since_mark()
                    if type(stack[-1]) is list:
                        stack[-1].extend(items)
                case "SETITEM" | "SETITEMS":
                    items = [stack.pop(-2), stack.pop()] if operation.name == "SETITEM" else since_mark()
                    if type(stack[-1]) is dict:
                        stack[-1].update(_pairs(items))
                case "EMPTY_SET":
                    stack.append(Inert("set"))
                case "ADDITEMS":
                    since_mark()
                case "FROZENSET":
                    since_mark()
                    stack.append(Inert("frozenset"))
                case name if name in CONSTANTS:
                    stack.append(CONSTANTS[name])
                case "GLOBAL":
                    stack.append(self._name(*str(argument).split(" ", 1)))
                case "STACK_GLOBAL":
                    stack[-2:] = [self._name(stack[-2], stack[-1])]
                case "REDUCE" | "NEWOBJ":
                    stack[-2:] = [self._made(stack[-2], stack[-1])]
                case "NEWOBJ_EX":
                    stack[-3:] = [self._made(stack[-3], stack[-2])]
                case "INST":
                    stack.append(self._made(self._name(*str(argument).split(" ", 1)), tuple(since_mark())))
                case "OBJ":
                    kind, *arguments = since_mark()
                    stack.append(self._made(kind, tuple(arguments)))
                case "BUILD":
                    stack.pop()  # the state of an object; an ordered dict's is its `_metadata`
                case "BINPERSID":
                    stack.append(self._persistent(stack.pop()))
                case "PERSID" | "EXT1" | "EXT2" | "EXT4":
                    stack.append(self._leave(f"{operation.name.lower()} {argument}"))
                case "POP":
                    _ = marks.pop() if marks and marks[-1] == len(stack) else stack.pop()
                case "POP_MARK":
                    since_mark()
                case "DUP":
                    stack.append(stack[-1])
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    return stack.pop()
                case "NEXT_BUFFER" | "READONLY_BUFFER":
                    raise ValueError("refers to buffers outside the file")
                case _:
                    stack.append(argument)  # a number or a text
        raise ValueError("ends too early")

    def _leave(self, what: str) -> Inert:
        self.inert[what] = None
        return Inert(what)

    def _name(self, module: Any, name: Any) -> Name:
        text = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "a name that is no text"
        if text not in REBUILT:
            self.inert[text] = None
        return Name(text)

    def _made(self, function: Any, arguments: Any) -> Any:
        text = function.text if isinstance(function, Name) else type(function).__name__
        given = arguments if isinstance(arguments, tuple) else ()
        if text in MAPPINGS:
            pairs = given[0] if given and isinstance(given[0], list) else []
            return _pairs([x for p in pairs if isinstance(p, list | tuple) and len(p) == 2 for x in p])
        if given and (text in PARAMETERS or text == "torch.Size"):
            return given[0]
        if text == WITH_TYPE and len(given) > 2:  # function, type, its arguments, state
            return self._made(given[0], given[2]) if given[0] != function else Inert(text)
        if text in TENSORS and len(given) >= 4 and isinstance(given[0], Storage):
            third = text.endswith("_v3")
            dtype = given[6] if third and len(given) > 6 else Name(f"torch.{given[0].dtype}")
            if isinstance(dtype, Name) and not any(given[7 if third else 6 :]):  # else conjugated or negated
                self.inert.pop(dtype.text, None)
                return Described(*given[:4], dtype.text.removeprefix("torch."))
        return Inert(text)

    def _persistent(self, reference: Any) -> Any:
        match reference:
            case ("storage", Name(text), key, str(), count, *view) if text in KNOWN and view in ([], [None]):
                if isinstance(key, str) and type(count) is int and count >= 0:
                    return self.storages.setdefault(key, Storage(key, KNOWN[text], count))
        return self._leave("a reference to something outside the file")


def _pairs(items: list[Any]) -> dict[str, Any]:
    """Names to values. Other keys are left out: no weight has one, and hashing them could be made to take for ever."""
    return {k: v for k, v in zip(items[::2], items[1::2], strict=True) if type(k) is str}
