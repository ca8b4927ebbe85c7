"""`embedx spuriosity annotate`: which features are spurious, said by people, by a file or by a rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embedx.cli._options import HEAD_OF_MODEL, ModelOption
from embedx.cli.spuriosity._figures import points
from embedx.cli.spuriosity._options import rule_of_votes

if TYPE_CHECKING:
    from embedx.evaluation.model import ModelName
    from embedx.spuriosity.analysis import Analysis
    from embedx.spuriosity.annotations import Annotation, Rule
    from embedx.workspace import Workspace

SHOWN = 50  # rows of the table


@click.command("annotate")
@click.argument("dataset")
@click.option("-b", "--backbone", required=True, help="The cached backbone whose features are annotated.")
@click.option("--from", "source", metavar="SOURCE",
              help="attributes, attributes=NAME, text=PHRASES.txt, masks=FOLDER (yours, or what `embedx spuriosity "
              "masks` wrote), boxes=FOLDER (boxes around masks), VOTES.csv (the public table of Salient ImageNet), or "
              "ANNOTATIONS.jsonl. Without it, what there is already is shown.")  # fmt: skip
@click.option("--model", type=ModelOption(),
              help=f"For text: the model whose right and wrong predictions decide. {HEAD_OF_MODEL} Default: the "
              "backbone.")  # fmt: skip
@click.option("--min-votes", "rule", metavar="RULE", callback=rule_of_votes,
              help="Votes that call a feature spurious: a number, majority, unanimous. Default: majority.",
              )  # fmt: skip
@click.option("--threshold", type=click.FloatRange(0.5, 1), metavar="AUROC",
              help="For attributes: how well a spurious feature has to tell one. Default: 0.75.")  # fmt: skip
@click.option("--weights", type=click.Path(path_type=Path), help="For masks: local weights of the backbone.")
@click.option("--fingerprint", metavar="SHA256", default="",
              help="For VOTES.csv: state that a backbone from a file of yours is the network that was annotated.",
              )  # fmt: skip
@click.option("--export", type=click.Path(dir_okay=False, path_type=Path),
              help="Also write the votes as a table like VOTES.csv.")  # fmt: skip
@click.option("-o", "--out", type=click.Path(file_okay=False, path_type=Path),
              help="Default: results/DATASET/spuriosity.")  # fmt: skip
@click.pass_obj
def command(
    workspace: Workspace,
    dataset: str,
    backbone: str,
    source: str | None,
    model: ModelName | None,
    rule: Rule | None,
    threshold: float | None,
    weights: Path | None,
    fingerprint: str,
    export: Path | None,
    out: Path | None,
) -> None:
    """Say which of the features found by `embedx spuriosity discover` are spurious for their class.

    Adds to annotations.jsonl: votes of people stay, and decide where there are any. Cue phrases are no features: with
    --from text=FILE, one phrase a line, the cues that a model leans on go to text-cues.jsonl, and the images are ranked
    by them at once.

    \b
    Example:
      embedx spuriosity annotate planted -b tiny:broad --from attributes=mark,ground,companion
      embedx spuriosity annotate imagenet -b robust:madry-l2-eps3 --from discover_spurious_features.csv
    """
    from embedx.cli._output import progress
    from embedx.cli.spuriosity._opening import open_analysis
    from embedx.spuriosity.annotate import Masks, annotate
    from embedx.spuriosity.annotations import salient

    analysis = open_analysis(workspace, dataset, backbone, out, [model.backbone] if model else [])
    kind, _, rest = (source or "").partition("=")
    beside = {"--export": export, "--min-votes": rule, "--fingerprint": fingerprint, "--weights": weights}
    if kind == "text" and (odd := [name for name, value in beside.items() if value]):
        raise click.UsageError(f"{odd[0]} is for features; --from text=FILE annotates with phrases")
    if kind != "text" and model is not None:
        raise click.UsageError("--model is for --from text=FILE: no other source asks a model")
    if kind == "text":
        _by_words(analysis, Path(rest), model)
        return
    given: dict[str, Any] = {}
    if kind != "attributes" and threshold is not None:
        raise click.UsageError("--threshold is for --from attributes: no other source has one")
    if kind == "attributes":
        given["attributes"] = rest.split(",") if rest else tuple(analysis.manifest.codes)
        given |= {} if threshold is None else {"threshold": threshold}
    elif kind in ("masks", "boxes"):
        given["masks"] = Masks(Path(rest), kind == "boxes", weights)
    elif source is not None:
        given |= {"file": Path(source), "fingerprint": fingerprint}
    with progress("annotate", "blocks") as bar:
        entries = annotate(analysis, rule=rule, progress=bar, **given)
    _show(analysis, entries, written=bool(given) or rule is not None)
    if export is not None:
        click.echo(f"wrote {export}: {salient.write(export, entries):,} votes")


def _by_words(analysis: Analysis, file: Path, model: ModelName | None) -> None:
    """Phrases of a file, and the cues among them."""
    from embedx.cli._output import intervals, progress, remark, show_table
    from embedx.errors import SpuriosityError
    from embedx.spuriosity.annotate import annotate_by_words

    try:
        phrases = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpuriosityError(f"{file} cannot be read as text; expected --from text=FILE, a phrase a line") from error
    with progress("annotate", "blocks") as bar:
        result = annotate_by_words(analysis, phrases, model or "", progress=bar)
    rows = [
        [c.class_name, c.phrase, points(c.gap), f"{c.k} of {c.n:,}", f"{c.adjusted:.2g}",
         "–" if c.among is None else f"{c.among:.2g}", "–" if c.without is None else points(c.without),
         f"{c.verdict}: {c.of}" if c.of else c.verdict]
        for c in [c for c in result.tests if c.verdict != "no gap"][:SHOWN]
    ]  # fmt: skip
    columns = (("class", False), ("phrase", False), ("gap on validation, points", True), ("images a side", True),
               ("adjusted p", True), ("p among directions", True),
               ("without the head's direction", True), ("verdict", False))  # fmt: skip
    if not result.shared:
        columns, rows = (*columns[:-2], columns[-1]), [[*row[:-2], row[-1]] for row in rows]
    caption = (
        f"{len(result.tests):,} tests, adjusted together (Benjamini and Hochberg); {intervals(analysis.manifest)}; "
        f"model: {result.model}"
    )
    title = f"{analysis.manifest.name}  phrases by {analysis.cache.header.backbone}"
    show_table(title, columns, rows, caption=caption)
    control = result.control
    remark(
        f"control: {100 * control.beyond:.1f} % of {control.tests:,} tests of random directions have a p of at most "
        "0.05 by a random order, where 5 % would be chance; p among directions: of so large a gap of one of them"
    )
    click.echo(f"wrote {result.file}: {len(result.cues):,} cues of {len(result.tests):,} tests")
    if result.ranking is not None:
        click.echo(f"wrote {result.ranking}: the images of {len(result.phrases):,} classes ranked")


def _show(analysis: Analysis, entries: Sequence[Annotation], *, written: bool) -> None:
    """What is decided, the spurious first; how far people agree; and the file, where it was written."""
    from embedx.cli._output import remark, show_table
    from embedx.spuriosity.annotations import agreement, spurious

    order = sorted(entries, key=lambda a: (a.label != "spurious", a.class_index, a.rank or 0))
    rows = []
    for a in order[:SHOWN]:
        votes = f"{sum(v.spurious for v in a.votes)} of {len(a.votes)}" if a.votes else "–"
        words = a.kind.replace("_", " ")
        rows.append([a.class_name, str(a.feature), "–" if a.rank is None else str(a.rank), a.label,
                     ", ".join(filter(None, (words, a.cue))) or "–", votes, _why(a), a.source])  # fmt: skip
    columns = (("class", False), ("feature", True), ("rank", True), ("label", False), ("it shows", False),
               ("votes for spurious", True), ("because", False), ("source", False))  # fmt: skip
    show_table(f"{analysis.manifest.name}: annotated features", columns, rows, spare=("rank", "source", "because"))
    if (more := len(order) - SHOWN) > 0:
        remark(f"note: {more:,} more pairs")
    three, two = agreement(entries), agreement(entries, binary=True)
    if three.pairs:
        figures = ("–" if x.kappa is None else f"{x.kappa:.2f}" for x in (three, two))
        words = "Fleiss' kappa {} for the three answers, {} for core or spurious".format(*figures)
        remark(f"{words}, over {three.pairs:,} pairs with two votes or more")
    if written:
        cues = spurious(entries)
        pairs = sum(map(len, cues.values()))
        click.echo(
            f"wrote {analysis.annotations_file}: {len(entries):,} pairs, {pairs:,} spurious over {len(cues):,} classes"
        )


def _why(a: Annotation) -> str:
    """The figure that an automatic source went by."""
    mask, attribute = a.evidence.get("mask"), a.evidence.get("attribute")
    if a.source == "auto:mask" and mask and mask["share"] is not None:
        frame, d = 100 * sum(mask["frame"]) / len(mask["frame"]), mask.get("difference")
        beyond = f": {100 * d['value']:+.0f} ({100 * d['low']:+.0f} to {100 * d['high']:+.0f})" if d else ""
        share, n = 100 * mask["share"], len(mask["frame"])
        return f"{share:.0f} % outside the object, {frame:.0f} % of the frame{beyond}, n = {n}"
    if a.source == "auto:attribute" and attribute and attribute["tests"]:
        best = max(attribute["tests"], key=lambda t: (f"{t['attribute']}: {t['value']}" == a.cue, t["auroc"]))
        return f"tells {best['attribute']} {best['value']}, AUROC {best['auroc']:.2f}"
    return "–"
