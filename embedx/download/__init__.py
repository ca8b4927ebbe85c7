"""Public files of a dataset: fetched so that an interruption costs nothing, unpacked so that an archive cannot harm."""

from embedx.download.fetch import fetch
from embedx.download.item import Download
from embedx.download.place import Got, get
from embedx.download.unpack import unpack

__all__ = ["Download", "Got", "fetch", "get", "unpack"]
