"""`t2 backfill`: build partitions of tables again, and follow, cancel, resume or retry that."""

from __future__ import annotations

import click

from t2.cli.backfill.change import cancel, resume, retry
from t2.cli.backfill.follow import list_, show
from t2.cli.backfill.start import EXAMPLES, start


class _Verbs(click.Group):
    """A group where what is no subcommand names tables: `t2 backfill TABLE` is `t2 backfill start TABLE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["start", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Verbs, epilog=EXAMPLES, subcommand_metavar="TABLE[+] ... | COMMAND ...")
def command() -> None:
    """Build partitions of tables again: once each, behind everything current.

    TABLE+ takes what reads TABLE, too. `t2 backfill start --help` lists how partitions are chosen. What will
    be done is shown first. The runs are those of `t2 dev`, in sizes of `backfill.partitions_per_run` and at
    most `backfill.concurrency` of a table at once.
    """


for verb in (start, list_, show, cancel, resume, retry):
    command.add_command(verb)
