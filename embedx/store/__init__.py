"""Feature caches on disk. The format is specified in `cache/README.md`; nothing else reads or writes these files."""

from embedx.store.by_name import open_cache as open_cache
from embedx.store.by_name import open_caches as open_caches
from embedx.store.header import Header as Header
from embedx.store.reader import FeatureCache as FeatureCache
from embedx.store.writer import CacheWriter as CacheWriter
from embedx.store.writer import Rows as Rows
