"""The command line: one file per command, imported when it is asked for. The only place that prints or exits."""

from __future__ import annotations

import importlib
import io
import os
import pkgutil
import sys
from pathlib import Path
from typing import Any

import click

from embedx import __version__
from embedx.errors import EmbedxError
from embedx.workspace import FOLDER, VARIABLE, Workspace


class Commands(click.Group):
    """Finds commands by their files in a package, each imported when it is asked for."""

    package = __name__

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the modules in the package, sorted; those with a leading underscore are no commands."""
        folder = importlib.import_module(self.package).__path__
        return sorted(m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of the module with this name, `None` where there is none."""
        if cmd_name not in self.list_commands(ctx):
            return None
        return importlib.import_module(f"{self.package}.{cmd_name}").command


class Embedx(Commands):
    """Turns our errors into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises `ClickException` for an `EmbedxError` or an `OSError`, or the error with --debug."""
        try:
            return super().invoke(ctx)
        except EmbedxError as error:
            if ctx.params["debug"]:
                raise
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:
            # The reader of our output left (`embedx list backbones | head`): nothing is wrong.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(0) from None
        except OSError as error:
            if ctx.params["debug"] or error.strerror is None:
                raise
            raise click.ClickException(f"{error.filename or 'a file'}: {error.strerror}") from error


@click.group(cls=Embedx, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), default=FOLDER, envvar=VARIABLE,
              show_default=True, help="Folder of manifests and feature caches.")  # fmt: skip
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="embedx")
@click.pass_context
def main(ctx: click.Context, cache: Path, debug: bool) -> None:
    """Is a good embedding enough? Embed images once with frozen backbones, then compare cheap linear heads by their
    worst group.

    \b
    Example:
      embedx extract demo -b tiny:untrained -b tiny:narrow -b tiny:broad
      embedx compare demo
    """
    from embedx.plugins.outside import closed_folder

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 gets question marks, not a traceback
    ctx.with_resource(closed_folder())
    ctx.obj = Workspace(cache)
