"""The command line of sendmail(1), read as Postfix reads it. Pure."""

from _collections_abc import Sequence

_WITH_VALUE = "ABCFLNORVXbefhopqr"
_WITHOUT = "GIUcimnstvx"
_NOTIFY = ("NEVER", "SUCCESS", "FAILURE", "DELAY")
_MODES = {"m": "send", "p": "list", "i": "aliases", "s": "smtp", "h": "nothing", "H": "nothing"}
_BY_NAME = {"mailq": "list", "newaliases": "aliases"}


class UsageError(Exception):
    """The command line makes no sense; the text says what of it."""


class Options:
    """What the command line asks for.

    `mode`: send, smtp (-bs), list (-bp), aliases (-bi), nothing (-q, -bh), help, version.
    `sender` is None where nothing names one, "" for the null one. `recipients` are arguments as
    they were given.
    """

    __slots__ = (
        "dot_ends",
        "from_header",
        "full_name",
        "mode",
        "never_notify",
        "recipients",
        "sender",
        "verbose",
        "warnings",
    )

    def __init__(self, mode: str = "send") -> None:
        self.mode = mode
        self.dot_ends = True
        self.from_header = False
        self.full_name: str | None = None
        self.sender: str | None = None
        self.never_notify = False
        self.verbose = False
        self.recipients: list[str] = []
        self.warnings: list[str] = []


def read_options(name: str, arguments: Sequence[str]) -> Options:
    """Return what `arguments` say to a program called by `name`.

    Options come before recipients, several letters may share a dash ("-tioi" is -t -i -oi), and
    "--" ends them. What concerns a mail system of another kind is taken and means nothing.

    Raises:
        UsageError: an option that nobody knows, or one without the value it needs.
    """
    options = Options(_BY_NAME.get(name, "send"))
    at = 0
    while at < len(arguments):
        argument = arguments[at]
        if argument in ("--help", "--version"):
            options.mode = argument[2:]
            return options
        if argument == "--":
            at += 1
            break
        if not argument.startswith("-") or argument == "-":
            break
        at += 1
        if argument == "-q":  # its value may be left out
            options.mode = "nothing"
            continue
        place = 1
        while place < len(argument):
            letter = argument[place]
            place += 1
            if letter in _WITHOUT:
                _flag(options, letter)
                continue
            if letter not in _WITH_VALUE:
                raise UsageError(f"no such option: -{letter}")
            value = argument[place:]
            if not value:
                if at == len(arguments):
                    raise UsageError(f"-{letter} needs a value")
                value = arguments[at]
                at += 1
            if letter == "o" and value[:1] == "i":
                options.dot_ends = False
            else:
                _value(options, letter, value)
            break
    options.recipients = list(arguments[at:])
    return options


def _flag(options: Options, letter: str) -> None:
    if letter == "i":
        options.dot_ends = False
    elif letter == "t":
        options.from_header = True
    elif letter == "v":
        options.verbose = True
    elif letter == "I":
        options.mode = "aliases"
    elif letter == "n":
        raise UsageError("-n is not supported: aliases are always followed")


def _value(options: Options, letter: str, value: str) -> None:
    if letter in "fr":
        options.sender = value
    elif letter == "F":
        options.full_name = value
    elif letter == "b":
        if value[:1] not in _MODES:
            raise UsageError(f"-b{value[:1]} is not supported{_INSTEAD.get(value[:1], '')}")
        options.mode = _MODES[value[0]]
    elif letter == "q":
        options.mode = "nothing"
    elif letter == "B":
        if value not in ("7BIT", "8BITMIME"):
            raise UsageError("-B takes 7BIT or 8BITMIME")
    elif letter == "N":
        _notify(options, value)
    elif letter == "R":
        if value.upper() not in ("FULL", "HDRS"):
            options.warnings.append(f"-R takes full or hdrs, not {value!r}: ignored")
    elif letter == "V":
        if len(value) > 100 or not value.isprintable():
            options.warnings.append("-V takes up to 100 printable characters: ignored")
    elif letter == "X":
        if value[:1] != "V":
            raise UsageError(f"-X{value[:1]} is not supported")
    elif letter == "o" and value == "A":
        raise UsageError("-oA needs the path of a table")


_INSTEAD = {
    "d": ": the services are started by systemd, or by `franker run`",
    "l": ": the services are started by systemd, or by `franker run`",
    "v": ": no address is verified without sending to it",
    "t": ": `franker explain --to ADDRESS` shows where mail goes",
}


def _notify(options: Options, value: str) -> None:
    words = [word.strip().upper() for word in value.split(",")]
    unknown = [word for word in words if word not in _NOTIFY]
    if unknown or ("NEVER" in words and len(words) > 1):
        options.warnings.append(
            f"-N takes never, or some of success,failure,delay, not {value!r}: ignored"
        )
        return
    options.never_notify = words == ["NEVER"]
