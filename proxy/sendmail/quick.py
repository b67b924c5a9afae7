"""python -I -m proxy.sendmail.quick FILE: write franker-sendmail as a program that starts quickly.

It runs this interpreter isolated (-I: nothing of the user's environment), without looking for
packages (-S), which takes longer than handing a message in, and without tidying up at its end.
"""

import os
import sys

_TEXT = """\
#!{python} -IS
import os
import sys

sys.path.insert(0, {folder})
from proxy.sendmail import main

os._exit(main())
"""


def write(path: str) -> None:
    """Write the program to `path`, in place of what is there.

    It finds its code beside its interpreter, so that an environment can be put elsewhere.

    Raises:
        OSError: that cannot be.
    """
    python = sys.executable
    folder = os.path.abspath(__file__).removesuffix("/proxy/sendmail/quick.py")
    environment = os.path.dirname(os.path.dirname(python))
    where = repr(folder)
    if folder.startswith(environment + "/"):
        where = f'sys.executable.rsplit("/", 2)[0] + {folder.removeprefix(environment)!r}'
    new = f"{path}.new"
    with open(new, "w", encoding="utf-8") as file:
        file.write(_TEXT.format(python=python, folder=where))
    os.chmod(new, 0o755)  # noqa: S103 - everybody runs it
    os.replace(new, path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(sys.argv[1])
