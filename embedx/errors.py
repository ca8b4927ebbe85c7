"""What can go wrong through no fault of the program, each as one readable message.

Every message says what was found, what was expected and what to do next. The command line prints the message
and exits with 1; anything that is not an `EmbedxError` is a defect of ours and keeps its traceback.
"""


class EmbedxError(Exception):
    """Base of every error that a user can cause and mend."""


class UnknownName(EmbedxError):
    """A backbone, head, dataset or rule that does not exist."""


class ManifestError(EmbedxError):
    """A dataset's table of rows that is missing, malformed or contradicts itself."""


class BackboneError(EmbedxError):
    """A backbone that cannot be loaded: no such model, no weights, weights that do not fit."""


class DownloadError(EmbedxError):
    """A public file that cannot be fetched, is not what was published, or cannot be unpacked."""


class CacheError(EmbedxError):
    """A feature cache that is missing, foreign, incomplete or damaged."""


class ProvenanceError(CacheError):
    """A feature cache made from other weights, another transform or other rows than asked for."""


class ExtractionError(EmbedxError):
    """An extraction that cannot start or must not be finished."""


class SplitError(EmbedxError):
    """Data that cannot answer the question: an empty split, a group without test rows."""


class HeadError(EmbedxError):
    """A head that cannot be fitted on the data as they are."""


class SpuriosityError(EmbedxError):
    """A step of a spuriosity analysis whose input is missing, malformed or says nothing."""


class ResultsError(EmbedxError):
    """A file or folder of results that something else would replace, or be mixed up with."""


class StudyError(EmbedxError):
    """A study that is missing, malformed, or asks for what there is not."""
