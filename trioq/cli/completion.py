"""`trioq completion`: the scripts by which shells complete trioq's commands and flags."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a SHELL.

    \b
    bash: trioq completion bash >> ~/.bashrc
    zsh:  trioq completion zsh >> ~/.zshrc
    fish: trioq completion fish > ~/.config/fish/completions/trioq.fish
    """  # noqa: D301  the backslash is for click, which keeps the lines below it
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    script = get_completion_class(shell)
    assert script is not None, "the choices are click's own shells"
    click.echo(script(ctx.find_root().command, {}, "trioq", "_TRIOQ_COMPLETE").source())
