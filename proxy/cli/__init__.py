"""The command line. Nothing imports it; it composes the proxy and the worker."""

import click

from proxy.cli.checking import check
from proxy.cli.completion import completion
from proxy.cli.explaining import explain
from proxy.cli.options import example
from proxy.cli.queues import queue
from proxy.cli.sending import send_test
from proxy.cli.services import proxy, redis, run, sandbox, worker

_TERMS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_EPILOG = (
    example(
        "franker run             # everything on one host",
        "franker check           # can mail be kept, and can it leave?",
        "franker queue list      # what is waiting",
    )
    + "\n\nExit codes: 0 done; 1 failed; 2 wrong usage; 78 wrong configuration."
)


@click.group(context_settings=_TERMS, epilog=_EPILOG)
@click.version_option(package_name="franker", prog_name="franker")
def main() -> None:
    """Take mail from programs on this host without a password, keep it, relay it to Postmark."""


for command in (run, redis, proxy, worker, sandbox, check, explain, queue, send_test, completion):
    main.add_command(command)
