"""What the commands have in common that prepare tables: to train on (`training.prepare`) and to evaluate on."""

import argparse
from collections.abc import Callable, Mapping, Sequence

from vision_reasoner.cli import add_output_options, make_parser, run_command


def prepare_command(
    prog: str,
    description: str | None,
    sources: Mapping[str, str],
    add_flags: Callable[[argparse.ArgumentParser, str], None],
    prepare: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None,
) -> int:
    """Run a command that prepares a table, with a sub-command for each source.

    Args:
        prog: how it is called.
        description: for --help.
        sources: what a table can be prepared from: names of sub-commands, with a line about each.
        add_flags: gives a sub-command the flags of its own.
        prepare: does what was asked and returns the number of rows.
        argv: the arguments; None for those that the process was started with.
    """
    parser = make_parser(prog, description)
    commands = parser.add_subparsers(dest="source", required=True, metavar="source")
    for source, text in sources.items():
        sub = commands.add_parser(source, help=text, description=text, allow_abbrev=False)
        add_flags(sub, source)
        add = sub.add_argument
        add("--skip_bad", action="store_true", help="leave out what cannot be used, and say so, rather than stop")
        add("--output_dir", required=True, metavar="DIR", help="gets parquet files and a README.md")
        add("--overwrite", action="store_true", help="replace the split that lies there")
        add_output_options(sub)

    def run(arguments: argparse.Namespace) -> int:
        print(f"{arguments.output_dir}: {prepare(arguments)} rows")
        return 0

    return run_command(parser, run, argv)
