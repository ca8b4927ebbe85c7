"""`embedx data`: fetch a dataset's public files, and check the files of any dataset."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedx.cli._options import pairs

if TYPE_CHECKING:
    from embedx.data.audit import Audit
    from embedx.data.manifest import Manifest
    from embedx.workspace import Workspace

SHOWN = 20
option = click.option("-O", "--option", "options", multiple=True, callback=pairs, metavar="KEY=VALUE",
                      help="Option of the dataset, repeatable, as for `embedx extract`.")  # fmt: skip


@click.group("data")
def command() -> None:
    """Fetch the public files of a dataset, or check the files of one.

    \b
    Example:
      embedx data get waterbirds
      embedx data check waterbirds
    """


@command.command("get")
@click.argument("dataset")
@click.option("-o", "--output", "folder", type=click.Path(file_okay=False, path_type=Path),
              help="Folder for the files.  [default: downloads/DATASET in the cache folder]")  # fmt: skip
@option
@click.pass_obj
def get(workspace: Workspace, dataset: str, folder: Path | None, options: dict[str, str]) -> None:
    """Fetch, unpack and prepare DATASET, so that `embedx extract DATASET` needs no --root.

    DATASET is one of `embedx list datasets`, or NAME=SOURCE to call it something else. What is there already is not
    fetched again, and a download that was interrupted goes on where it was. Files that are not public have to be put
    into the folder by hand; the same command then checks and unpacks them.

    \b
    Example:
      embedx data get waterbirds
      embedx data get waterbirds -o /data/waterbirds
    """
    from embedx import plugins
    from embedx.cli._output import progress, remark
    from embedx.data.download import get as get_files
    from embedx.data.prepare import prepare
    from embedx.errors import DownloadError, UnknownName
    from embedx.workspace import slug

    source = dataset.rpartition("=")[2]
    if source in workspace.datasets() and source not in plugins.names(plugins.DATASETS):
        raise UnknownName(f"{source!r} was prepared from files of your own; `embedx data check {source}` checks them")
    module = plugins.load(plugins.DATASETS, source)
    items = module.downloads() if hasattr(module, "downloads") else getattr(module, "DOWNLOADS", ())
    by_hand = getattr(module, "BY_HAND", "")
    root = None
    if not items and not hasattr(module, "make"):
        raise DownloadError(
            f"dataset {source!r} has no public files to fetch{': ' * bool(by_hand)}{by_hand}; "
            f"with the files in a folder, use `embedx extract {dataset} --root FOLDER`"
        )
    if items:
        for licence in dict.fromkeys(i.licence for i in items if i.licence):
            remark(f"licence of the data: {licence}")
        with progress(f"get {source}", "MB") as bar:
            got = get_files(items, folder or workspace.path / "downloads" / slug(source), by_hand, bar)
        root = got.root
        click.echo(f"{root}: {', '.join(got.done) + ' done' if got.done else 'complete already, nothing fetched'}")
        for path in got.spare if got.done else ():
            remark(f"note: {path} is unpacked and may be deleted")
    manifest, remarks = prepare(workspace, dataset, root, options)
    for line in remarks:
        remark(f"note: {line}")
    _show_counts(manifest)
    click.echo(f"{manifest.name} is prepared; next: embedx extract {manifest.name} -b BACKBONE")


@command.command("check")
@click.argument("dataset")
@click.option("-r", "--root", help="Where the dataset's files lie; needed the first time.")
@option
@click.option("--csv", "table", type=click.Path(dir_okay=False, path_type=Path),
              help="Write all findings into a table: id, finding, detail.")  # fmt: skip
@click.option("--workers", type=click.IntRange(0), default=None, show_default="cores", help="Processes; 0: none.")
@click.pass_obj
def check(
    workspace: Workspace,
    dataset: str,
    root: str | None,
    options: dict[str, str],
    table: Path | None,
    workers: int | None,
) -> None:
    """Read every file of DATASET: counts, files that cannot be decoded, and images that are there twice.

    Exits with 1 when a count is not the published one, values look alike, a row cannot be read, an image (or a subject,
    where the dataset names a cluster) lies in two splits, equal images have different labels, or a feature cache was
    made from other bytes than the files hold now. Values that look alike
    (Land and land, 0 and 0.0, nan) are taken for one with -O alike=fold, or said to be meant with -O alike=keep, when
    the dataset is prepared. Equal images of one label within a split are counted, and are no error.

    \b
    Example:
      embedx data check waterbirds
      embedx data check pets=folder --root pets --csv findings.csv
    """
    from embedx.cli._output import progress, remark
    from embedx.data.audit import audit, write
    from embedx.data.manifest import alike
    from embedx.data.prepare import prepare, source_of

    if table is not None and not table.parent.is_dir():
        raise click.UsageError(f"--csv {table}: there is no folder {table.parent}")  # now, not after reading everything
    manifest, remarks = prepare(workspace, dataset, root, options)
    findings = {f"{manifest.name}: {line}" for line in (*manifest.differences(), *map(str, alike(manifest)))}
    for line in remarks:
        if line not in findings:  # they are shown below
            remark(f"note: {line}")
    with progress(f"check {manifest.name}", "images") as bar:
        report = audit(manifest, source_of(workspace, manifest), workers, bar)
    if table is not None:
        write(report, table)
    _show_counts(manifest)
    as_extracted = _show_caches(workspace, report)
    _show_findings(report, as_extracted)
    if table is not None:
        click.echo(f"all findings are in {table}")
    if not (report.sound and as_extracted):
        raise click.exceptions.Exit(1)


def _show_counts(manifest: Manifest) -> None:
    """Rows by group and split, and beside them the published ones where they differ."""
    from embedx.cli._output import show_table
    from embedx.data.manifest import SPLITS

    counts = manifest.counts()

    def cell(split: str, group: str) -> str:
        published = manifest.expected.get(key := f"{split}/{group}", counts[key])
        return f"{counts[key]:,}" + (f" (not {published:,})" if published != counts[key] else "")

    names = manifest.group_names
    caption = f"and {len(names) - 100:,} more groups" if len(names) > 100 else ""
    rows = [[g, *(cell(s, g) for s in SPLITS)] for g in names[:100]]
    rows.append(["all", *(f"{int((manifest.splits == s).sum()):,}" for s in range(len(SPLITS)))])
    show_table(
        f"{manifest.name}: {len(manifest):,} rows", [("group", False), *((s, True) for s in SPLITS)], rows, caption
    )


def _show_caches(workspace: Workspace, report: Audit) -> bool:
    """Whether all feature caches were made from the bytes that the files hold now; told for each."""
    from embedx.extract.verify import of_other_bytes
    from embedx.store import FeatureCache

    manifest, as_extracted = report.manifest, True
    for name in workspace.backbones(manifest.name):
        cache = FeatureCache.open_complete(workspace.cache(manifest.name, name))
        changed = of_other_bytes(manifest.ids, report.hashes, cache)
        as_extracted &= not len(changed)
        what = "made from these files"
        if len(changed):
            what = (
                f"{len(changed):,} of {len(manifest):,} rows were made from other bytes (for example "
                f"{manifest.ids[changed[0]]}); `embedx extract {manifest.name} -b {cache.header.backbone}` brings them "
                "up to date"
            )
        click.echo(f"cache          {name}: {what}")
    return as_extracted


def _show_findings(report: Audit, as_extracted: bool) -> None:
    from embedx.data.manifest import SPLITS

    manifest = report.manifest
    differences, failed = manifest.differences(), len(report.failed)
    agreement = "as published" if manifest.expected else "no published ones are known"
    lines = [
        f"counts         {f'{len(differences)} differ from the published ones' if differences else agreement}",
        f"words          {f'{len(report.alike):,} times values look alike' if report.alike else 'none look alike'}",
        f"files          {f'{failed:,} of {len(manifest):,} cannot be read' if failed else 'all can be read'}",
        f"between splits {_images(len(report.leaks), 'lie in more than one split: a leak')}",
        *_split_subjects(report),
        f"labels         {_images(len(report.contradictions), 'have more than one label')}",
    ]
    repeated = {s: report.repetitions[s] for s in SPLITS if report.repetitions[s]}
    lines.append(
        "within a split " + (", ".join(f"{n:,} rows of {s} repeat another" for s, n in repeated.items()) or "none")
    )
    click.echo("\n".join(lines))
    serious = (f for f in report.findings() if f.kind != "repetition")
    for f in islice(serious, SHOWN):
        click.echo(f"  {f.kind}  {f'{f.id}: ' * bool(f.id)}{f.detail}")
    if next(serious, None) is not None:
        click.echo("  … and more; --csv FILE writes all of them")
    click.echo(f"{manifest.name}: {'sound' if report.sound and as_extracted else 'something is wrong, see above'}")


def _split_subjects(report: Audit) -> list[str]:
    """Whether subjects lie in several splits, where a cluster is named."""
    if (subjects := report.manifest.subjects) is None:
        return []
    n = len(report.subjects)
    of = f"{len(subjects.names):,} ({subjects.column})"
    return [
        f"subjects       {f'{n:,} of {of} lie in more than one split: a leak' if n else f'{of}, each in one split'}"
    ]


def _images(n: int, what: str) -> str:
    return f"{n:,} images {what}" if n else "none"
