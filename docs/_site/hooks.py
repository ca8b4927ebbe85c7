"""What the site has beyond the Markdown of its pages; MkDocs calls the `on_` functions.

- A block that begins with ```` ```sh run ```` is run, command by command, and the output stands below it. All blocks
  share one fresh folder, in the order of the navigation; `docs/examples` is copied into it. `expect="words"` behind
  `run` makes a claim of the text around it: the build fails where the output does not hold the words.
- A block of Python that holds only `# docs/examples/NAME.py` shows that file.
- A link to `made/PATH` is a link to what the commands wrote to `results/PATH`.
- Pages are made of Markdown that lives elsewhere, of the help texts of the commands, and of the public names.
- The finished pages must not load anything from another host.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from textwrap import indent
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"cache.md": "cache/README.md", "heads.md": "probes/README.md"}
"""Pages whose Markdown lives beside what it describes."""
REPOSITORY = "https://github.com/embedx/embedx/blob/main"
"""Where files are that the site does not hold."""
FACES = ("embedx", "embedx.probes", "embedx.extractors", "embedx.data.manifest")
"""Modules whose public names stand in the Python reference."""
log = logging.getLogger("mkdocs.hooks.commands")
RUN = re.compile(r"^```sh run(?P<claims>[^\n]*)\n(?P<commands>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^(?P<indent> *)```python\n *# (?P<path>docs/examples/\S+\.py)\n *```$", re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)[^)#\s]+")
MADE = re.compile(r"\]\(made/([^)#\s]+)")
ASSET = re.compile(r"<(?:script|link|img|iframe|source|object)\b[^>]*?\b(?:src|href|data)=[\"']?(?:https?:)?//[^>]*>")
LOADED = re.compile(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']*")
MINUTES = 10

Block = tuple[str, int, str]
"""A block: its page, its number on that page, its commands."""
outputs: dict[Block, str] = {}
"""What the blocks show; kept while `mkdocs serve` builds again."""


def on_files(files: Files, config: Any) -> Files:
    """Run the blocks, then add the pages and files that come from elsewhere."""
    style = Path(__file__).with_name("style.css")
    files.append(File.generated(config, style.name, abs_src_path=str(style)))
    texts = {page: (ROOT / source).read_text(encoding="utf-8") for page, source in ELSEWHERE.items()}
    texts |= {"commands.md": commands_page(), "python.md": python_page()}
    for page, text in texts.items():
        files.append(File.generated(config, page, content=text))
    made = []
    for page in pages(config["nav"]):
        if (file := files.get_file_from_path(page)) is not None:
            text = file.content_string
            for number, block in enumerate(RUN.finditer(text)):
                show(page, number, block)
            made += MADE.findall(text)
    results = folder() / "results"
    for path in dict.fromkeys(made):
        # A page that the commands made may need the files beside it.
        beside = results.joinpath(path).parent.rglob("*") if path.endswith(".html") else [results / path]
        for source in sorted(p for p in beside if p.is_file()):
            uri = f"made/{source.relative_to(results).as_posix()}"
            if files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Outputs below their blocks, and links that hold within the site."""
    name = page.file.src_uri
    home = PurePosixPath(ELSEWHERE.get(name, f"docs/{name}")).parent
    numbers = count()
    text = LINK.sub(lambda link: within(link[0], home), markdown)
    text = FILE.sub(lambda block: indent(f"```python\n{(ROOT / block['path']).read_text()}```", block["indent"]), text)
    return RUN.sub(lambda block: outputs[name, next(numbers), block["commands"]], text)


def on_post_build(config: Any) -> None:
    """Nothing that a page shows or runs comes from another host."""
    site = Path(config["site_dir"])
    for file in sorted(site.rglob("*")):
        if file.suffix in (".html", ".css", ".svg"):
            loaded = (LOADED if file.suffix == ".css" else ASSET).search(file.read_text(encoding="utf-8"))
            if loaded:
                raise PluginError(f"{file.relative_to(site)} loads from another host: {loaded[0][:200]}")


def pages(nav: Any) -> Iterator[str]:
    """The pages of a navigation in its order."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from pages(part)


def within(link: str, home: PurePosixPath) -> str:
    """A link of a file in the folder `home` of the repository, as a link between pages of the site, or out of it."""
    target = PurePosixPath(os.path.normpath(home / link)).as_posix()
    page = {source: page for page, source in ELSEWHERE.items()}.get(target)
    if page is None and not target.startswith("docs/") and (ROOT / target).is_file():
        return f"{REPOSITORY}/{target}"
    return page or (target.removeprefix("docs/") if target.startswith("docs/") else link)


@cache
def fresh() -> TemporaryDirectory[str]:
    """A folder that goes when the build ends."""
    out = TemporaryDirectory(prefix="docs-")
    shutil.copytree(ROOT / "docs" / "examples", out.name, dirs_exist_ok=True)
    return out


def folder() -> Path:
    """Where the commands run."""
    return Path(fresh().name)


def show(page: str, number: int, block: re.Match[str]) -> None:
    """Run the commands of a block. Raises `PluginError` for one that fails, or whose output belies the text."""
    key = (page, number, block["commands"])
    if key in outputs:
        return
    parts = []
    for command in re.findall(r"(?:[^\n]*\\\n)*[^\n]+", block["commands"]):
        log.info("%s: $ %s", page, command)
        parts.append(f"$ {command}\n{output_of(command, page)}")
    shown = "\n".join(parts)
    for claim in re.findall(r'expect="([^"]+)"', block["claims"]):
        if not re.search(claim, shown):
            raise PluginError(f"{page} says {claim!r}, and its commands print:\n{shown}")
    outputs[key] = f"```console\n{shown}```"


def output_of(command: str, page: str) -> str:
    """What a command prints, and its notes; not how long it took, which differs each time."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("EMBEDX_", "PYTHON", "CUDA_"))} | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "LC_ALL": "C.UTF-8",
        "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder(), env=environment, capture_output=True, text=True,
        timeout=60 * MINUTES, check=False,
    )  # fmt: skip
    if done.returncode:
        raise PluginError(f"{page}: {command}\n{done.stdout}{done.stderr}")
    notes = [line for line in done.stderr.splitlines() if line.startswith(("note: ", "warning: "))]
    text = "\n".join([*notes, done.stdout.strip("\n"), ""]).lstrip("\n")
    if str(folder()) in text:
        raise PluginError(f"{page}: {command} prints the path of the folder it ran in, which differs each time")
    return text


def commands_page() -> str:
    """Every command's help text, groups before their members."""
    import click

    from embedx.cli import main

    def told(context: click.Context, depth: int) -> Iterator[str]:
        command = context.command
        yield f"{'#' * depth} {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                member = command.get_command(context, name)
                assert member is not None
                inner = click.Context(member, info_name=name, parent=context, max_content_width=88)
                yield from told(inner, min(depth + 1, 3))

    top = click.Context(main, info_name="embedx", max_content_width=88)
    return "# Commands\n\n" + "\n".join(told(top, 2))


def python_page() -> str:
    """The public names of every face, each with its docstring."""
    parts = ["# Python\n"]
    for face in FACES:
        names = sorted(n for n in getattr(importlib.import_module(face), "__all__", ()) if not n.startswith("_"))
        if names:
            parts += [f"## {face}\n", *(f"::: {face}.{name}\n" for name in names)]
    return "\n".join(parts)
