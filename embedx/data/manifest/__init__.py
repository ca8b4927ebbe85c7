"""The manifest: which rows a dataset has, and what is known of each. Labels live here and never in a feature cache.

On disk `manifest.csv` (columns `id`, `label`, `split`, then one per attribute, all spelled in words, so that a person
can correct a label by hand) and `manifest.json` (class and attribute values in order, which attributes form the
groups, source, licence, expected counts, digests).
"""

from embedx.data.manifest.alike import Alike as Alike
from embedx.data.manifest.alike import alike as alike
from embedx.data.manifest.alike import folded as folded
from embedx.data.manifest.disk import FACTS as FACTS
from embedx.data.manifest.disk import MEMBERS as MEMBERS
from embedx.data.manifest.disk import TABLE as TABLE
from embedx.data.manifest.disk import Kept as Kept
from embedx.data.manifest.disk import Lost as Lost
from embedx.data.manifest.disk import alone as alone
from embedx.data.manifest.disk import amend as amend
from embedx.data.manifest.disk import check_members as check_members
from embedx.data.manifest.disk import is_table_of as is_table_of
from embedx.data.manifest.disk import load as load
from embedx.data.manifest.disk import read as read
from embedx.data.manifest.disk import save as save
from embedx.data.manifest.table import ALIKE as ALIKE
from embedx.data.manifest.table import RESERVED as RESERVED
from embedx.data.manifest.table import SPLITS as SPLITS
from embedx.data.manifest.table import UNWRITABLE as UNWRITABLE
from embedx.data.manifest.table import Manifest as Manifest
from embedx.data.manifest.table import Origin as Origin
from embedx.data.manifest.table import Subjects as Subjects
from embedx.data.manifest.table import build as build
from embedx.data.manifest.table import clustered as clustered
from embedx.data.manifest.table import ids_digest as ids_digest
from embedx.data.manifest.words import tidy as tidy
