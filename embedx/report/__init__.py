"""The report of a comparison: one HTML page that opens offline, its plots as SVG files, and tables for a paper.

`write` makes it from runs; `publish` writes their records with it; `Comparison` is what both show.
"""

from embedx.report.comparison import Comparison as Comparison
from embedx.report.files import publish as publish
from embedx.report.files import write as write
