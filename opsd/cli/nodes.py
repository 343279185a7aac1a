"""`opsd nodes`: the state of every machine on one page, and whom opsd believes to be one.

The list is what the last runs found; it asks nobody, so it is there when the machines are not.
"""

from __future__ import annotations

import click

from opsd.cli.calling import LazyGroup


@click.group(
    cls=LazyGroup,
    name="nodes",
    invoke_without_command=True,
    commands_by_name={
        "list": ("opsd.cli.nodelist:list_", "Show the state of every machine."),
        "trust": ("opsd.cli.nodetrust:trust", "Say that machines are who they claim to be."),
        "check": ("opsd.cli.nodecheck:check", "Log in everywhere; say what opsd may read."),
    },
)
@click.pass_context
def nodes(context: click.Context) -> int | None:
    """See the machines, say which may be believed, and try the logins."""
    if context.invoked_subcommand is None:
        from opsd.cli.nodelist import list_  # noqa: PLC0415 - not for the other commands

        status: int | None = context.invoke(list_)
        return status
    return None
