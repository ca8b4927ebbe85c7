"""Which devices are meant."""

from __future__ import annotations

from embedx.errors import BackboneError


def devices_of(text: str, *, elsewhere: bool = False) -> tuple[str, ...]:
    """The devices that a user means: "auto" (all GPUs of this machine, else the processor), or names with commas.

    elsewhere  on other machines, so that nothing can be looked up here

    Raises `BackboneError` for what is no device, for one that is not here, and for a mixture of kinds.
    """
    import torch

    if text == "auto":
        if elsewhere or not torch.cuda.is_available():
            return ("cpu",)
        return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count()))
    devices = tuple(filter(None, text.split(",")))
    for device in devices or (text,):
        try:
            kind = torch.device(device).type
        except RuntimeError as error:
            raise BackboneError(f"no device {device!r}; use cpu, cuda or cuda:N") from error
        if kind not in ("cpu", "cuda"):
            raise BackboneError(f"device {device!r} is not supported; use cpu, cuda or cuda:N")
        if kind == "cuda" and not elsewhere and not torch.cuda.is_available():
            raise BackboneError(
                f"--device {device}, but torch {torch.__version__} sees no CUDA device here; use --device cpu"
            )
    if len({d.partition(":")[0] for d in devices}) > 1:
        raise BackboneError(f"--device {text}: features of one cache come from one kind of device; name cpu or cuda")
    return devices
