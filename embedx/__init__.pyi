from .data.manifest import Manifest as Manifest
from .errors import EmbedxError as EmbedxError
from .evaluation.compare import ComparisonSettings as ComparisonSettings
from .evaluation.compare import probe as probe
from .evaluation.runs import Run as Run
from .evaluation.split import Split as Split
from .evaluation.split import join as join
from .evaluation.verdict import Verdict as Verdict
from .evaluation.verdict import verdicts as verdicts
from .extract.request import ExtractionSettings as ExtractionSettings
from .scripting import compare as compare
from .scripting import extract_features as extract_features
from .scripting import open_cache as open_cache
from .scripting import open_dataset as open_dataset
from .scripting import prepare as prepare
from .store import FeatureCache as FeatureCache
from .workspace import Workspace as Workspace

__version__: str
