"""Public files of a dataset: fetched so that an interruption costs nothing, unpacked so that an archive cannot harm."""

from embedx.data.download.fetch import fetch
from embedx.data.download.item import Download
from embedx.data.download.place import Got, get
from embedx.data.download.unpack import unpack

__all__ = ["Download", "Got", "fetch", "get", "unpack"]
