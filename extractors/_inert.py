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


class Stack:
    """The stack of the machine, its marks and its memo, with the instructions that only arrange plain values."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def push(self, item: Any) -> None:
        """Put a value on top."""
        self.items.append(item)

    def since_mark(self) -> list[Any]:
        """Take off all that lies above the last mark."""
        at = self.marks.pop()
        items = self.items[at:]
        del self.items[at:]
        return items

    def arrange(self, name: str, argument: Any) -> bool:
        """Carry out an instruction of the stack, the memo or a plain container; false for any other."""
        items = self.items
        match name:
            case "BINGET" | "LONG_BINGET" | "GET":
                self.push(self.memo[int(argument)])
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[int(argument)] = items[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = items[-1]
            case "MARK":
                self.marks.append(len(items))
            case "POP":
                _ = self.marks.pop() if self.marks and self.marks[-1] == len(items) else items.pop()
            case "POP_MARK":
                self.since_mark()
            case "DUP":
                self.push(items[-1])
            case "PROTO" | "FRAME":
                pass
            case _ if name in CONSTANTS:
                self.push(CONSTANTS[name])
            case _:
                return self._contain(name)
        return True

    def _contain(self, name: str) -> bool:  # noqa: PLR0912 - one branch per instruction
        """The same for the instructions that build containers."""
        items = self.items
        match name:
            case "TUPLE":
                self.push(tuple(self.since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(name[-1])
                items[-n:] = [tuple(items[-n:])]
            case "EMPTY_LIST":
                self.push([])
            case "LIST":
                self.push(self.since_mark())
            case "EMPTY_DICT":
                self.push({})
            case "DICT":
                self.push(_pairs(self.since_mark()))
            case "APPEND" | "APPENDS":
                more = [items.pop()] if name == "APPEND" else self.since_mark()
                if type(items[-1]) is list:
                    items[-1].extend(more)
            case "SETITEM" | "SETITEMS":
                more = [items.pop(-2), items.pop()] if name == "SETITEM" else self.since_mark()
                if type(items[-1]) is dict:
                    items[-1].update(_pairs(more))
            case "EMPTY_SET":
                self.push(Inert("set"))
            case "ADDITEMS":
                self.since_mark()
            case "FROZENSET":
                self.since_mark()
                self.push(Inert("frozenset"))
            case _:
                return False
        return True


class Machine:
    """Runs pickles one after the other; collects the storages referred to and the names that were left inert."""

    def __init__(self) -> None:
        self.inert: dict[str, None] = {}
        self.storages: dict[str, Storage] = {}
        self._left = OPERATIONS

    def run(self, stream: Any) -> Any:
        """The value that a pickle builds. Raises `ValueError` for one that is too long, cut off or refers outside."""
        stack = Stack()
        for operation, argument, _ in pickletools.genops(stream):
            name = operation.name
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"more than {OPERATIONS:,} instructions")
            if name == "STOP":
                return stack.items.pop()
            if name in ("NEXT_BUFFER", "READONLY_BUFFER"):
                raise ValueError("refers to buffers outside the file")
            if not (stack.arrange(name, argument) or self._make(name, argument, stack)):
                stack.push(argument)  # a number or a text
        raise ValueError("ends too early")

    def _make(self, name: str, argument: Any, stack: Stack) -> bool:
        """Carry out an instruction that names, calls or refers to something; false for any other."""
        items = stack.items
        match name:
            case "GLOBAL":
                stack.push(self._name(*str(argument).split(" ", 1)))
            case "STACK_GLOBAL":
                items[-2:] = [self._name(items[-2], items[-1])]
            case "REDUCE" | "NEWOBJ":
                items[-2:] = [self._made(items[-2], items[-1])]
            case "NEWOBJ_EX":
                items[-3:] = [self._made(items[-3], items[-2])]
            case "INST":
                stack.push(self._made(self._name(*str(argument).split(" ", 1)), tuple(stack.since_mark())))
            case "OBJ":
                kind, *arguments = stack.since_mark()
                stack.push(self._made(kind, tuple(arguments)))
            case "BUILD":
                items.pop()  # the state of an object; an ordered dict's is its `_metadata`
            case "BINPERSID":
                stack.push(self._persistent(items.pop()))
            case "PERSID" | "EXT1" | "EXT2" | "EXT4":
                stack.push(self._leave(f"{name.lower()} {argument}"))
            case _:
                return False
        return True

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
    """Names to values. Other keys are left out: no weight has one, and their hashing may take for ever."""
    return {k: v for k, v in zip(items[::2], items[1::2], strict=True) if type(k) is str}
