"""`franker completion SHELL`: what a shell needs to complete our commands and options."""

import click

from proxy.cli.options import example

SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_FRANKER_COMPLETE"
_ZSH_LOADS = "$zsh_eval_context[-1] == loadautofunc"


@click.command(
    epilog=example(
        "franker completion bash > /etc/bash_completion.d/franker",
        "franker completion zsh > /usr/local/share/zsh/site-functions/_franker",
        "franker completion fish > ~/.config/fish/completions/franker.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion of franker's commands and options for bash (4.4 or later), zsh or fish.

    The install command and the package bring it along.
    """
    click.echo(script(shell), nl=False)


def script(shell: str) -> str:
    """Return the text that teaches `shell`, one of SHELLS, to complete `franker`."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # click knows all of SHELLS
    root = click.Group("franker")  # only its name matters: at each key the program itself is asked
    values = kind(root, {}, "franker", _VARIABLE)
    text = (kind.source_template % values.source_vars()).strip() + "\n"
    if shell == "zsh":
        # click asks whether zsh is loading the file, which it is at the first TAB only: the second
        # would complete nothing.
        assert text.count(_ZSH_LOADS) == 1
        text = text.replace(_ZSH_LOADS, "$funcstack[1] == _franker")
    return text
