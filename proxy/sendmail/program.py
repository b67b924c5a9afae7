"""What `franker-sendmail` does: hand a message to the proxy, or put it where the proxy finds it."""

import os
import sys

from proxy.sendmail import drop, where, wire
from proxy.sendmail.addresses import addresses_in
from proxy.sendmail.exits import (
    EX_DATAERR,
    EX_INTERRUPTED,
    EX_NOINPUT,
    EX_SOFTWARE,
    EX_TEMPFAIL,
    EX_USAGE,
)
from proxy.sendmail.letter import LARGEST, LARGEST_FILE, Letter, pack
from proxy.sendmail.message import Message, TooLargeError, read_message
from proxy.sendmail.options import Options, UsageError, read_options
from proxy.sendmail.output import say, write

HELP = """\
Usage: sendmail [OPTION]... [RECIPIENT]...
       mailq
       newaliases

Hands the message on standard input to Franker. Exit code 0 means that it is kept: by the proxy,
or, when the proxy does not answer or refuses it, in the drop folder, where the proxy takes it from;
what it refuses for good becomes a dead letter, and its owner is told.

  -t              take recipients from To, Cc and Bcc, too; Bcc is taken out
  -i, -oi         a line that is only a dot does not end the message
  -f, -r ADDRESS  the sender, "" or "<>" for none; otherwise the user's name
  -F NAME         the full name for a From that the message lacks
  -N never        tell nobody of failures (success, failure, delay: taken, and as always)
  -B 7BIT|8BITMIME, -V ID, -R full|hdrs
                  taken, and mean nothing here
  -v              say where the message was kept
  -bm             all this (the default)
  -bs             speak SMTP on standard input and output, with the proxy itself
  -bp, mailq      list the queue (franker queue list)
  -bi, -I, newaliases
                  nothing to do: aliases are read by the proxy, at its start and reload
  -q...           nothing to do: mail is tried again by itself
  --              what follows are recipients, dash or not

Options of other mail systems (-o..., -A, -C, -c, -e, -G, -h, -L, -m, -O, -p, -s, -U, -x, -XV) are
taken and mean nothing.

Exit codes: 0 kept; 64 wrong usage; 65 no message can be this large; 66 the message cannot be read;
69 not allowed, or no proxy (mailq, -bs); 70 not kept, by a defect of Franker's; 75 neither the
proxy nor the drop folder could take it; 130 interrupted: it may have been kept or not.

The drop folder is $FRANKER_DROP__FOLDER, else what /etc/franker/franker.toml says, else
/var/spool/franker/drop.

Example:
  printf 'Subject: hello\\n\\nIt works.\\n' | sendmail -f app@example.com you@example.net
"""


def main() -> int:
    """Do what the command line asks for; return the exit code."""
    try:
        return _main()
    except KeyboardInterrupt:
        return _fail(EX_INTERRUPTED, "interrupted; the message may have been kept or not")
    except Exception as error:  # a defect: one line, and a code that says so
        return _fail(EX_SOFTWARE, f"not kept, by a defect of Franker's: {error!r}")


def _main() -> int:
    name = os.path.basename(sys.argv[0])
    try:
        options = read_options(name, sys.argv[1:])
    except UsageError as error:
        return _fail(EX_USAGE, str(error))
    for warning in options.warnings:
        say(f"warning: {warning}")
    if options.mode == "version":
        write(1, "franker-sendmail, of Franker\n")
        return 0
    if options.mode == "help":
        write(1, HELP)
        return 0
    if options.mode == "aliases":
        write(1, "Franker reads aliases at its start and reload; there is no table to make.\n")
        return 0
    if options.mode == "nothing":
        return 0
    folder = where.drop_folder(os.environ)
    if options.mode == "list":
        from proxy.sendmail.listing import show_queue

        return show_queue(folder)
    if options.mode == "smtp":
        from proxy.sendmail.through import pass_through

        return pass_through(_addresses(folder))
    return _send(options, folder)


def _send(options: Options, folder: str) -> int:
    recipients = [one for word in options.recipients for one in addresses_in(_given(word))]
    if not recipients and not options.from_header:
        return _fail(EX_USAGE, "no recipients: name them, or say -t to take them from the header")
    try:
        octets = read_message(lambda: os.read(0, 65536), dot_ends=options.dot_ends)
    except TooLargeError:
        return _fail(EX_DATAERR, f"the message is larger than {LARGEST} octets; not sent")
    except OSError as error:
        return _fail(EX_NOINPUT, f"the message cannot be read: {error.strerror}; not sent")
    message = Message(octets)
    if options.from_header:
        recipients += message.recipients()
        message.take_out_blind()
        if not recipients:
            return _fail(EX_USAGE, "no recipients in the header (To, Cc, Bcc); not sent")
    sender = _sender(options)
    if b"from" not in message:
        message.put_from(_full_name(options) if sender else "", sender or "MAILER-DAEMON")
    letter = Letter(
        sender,
        list(dict.fromkeys(recipients)),
        message.octets(),
        never_notify=options.never_notify,
    )
    return _keep(letter, folder, verbose=options.verbose)


def _keep(letter: Letter, folder: str, *, verbose: bool) -> int:
    """Hand `letter` to the proxy, else put it into the drop folder; by one id, so that it is once.

    What the proxy refuses goes there, too: it makes a dead letter of it, and tells its owner.
    """
    octets = pack(letter)
    if len(octets) > LARGEST_FILE:  # the drop folder's reader would never take it
        text = f"the message is larger than {LARGEST_FILE} octets with its recipients; not sent"
        return _fail(EX_DATAERR, text)
    once = os.urandom(16).hex()
    try:
        connection = wire.connect(_addresses(folder))
        try:
            said = wire.submit(connection, letter, once)
        finally:
            connection.close()
    except wire.NotKeptError as error:
        why = str(error)
    else:
        if verbose:
            write(1, f"kept by Franker: {said}\n")
        return 0
    try:
        drop.put(folder, once, octets)
    except OSError as error:
        return _fail(
            EX_TEMPFAIL,
            f"not kept: the proxy: {why}; the drop folder {folder}: {error.strerror}",
        )
    if verbose:
        write(1, f"kept in {folder} for Franker: {why}\n")
    return 0


def _addresses(folder: str) -> list[str]:
    said = [address for address in drop.listening(folder) if address]
    return said or list(where.ADDRESSES)


def _sender(options: Options) -> str:
    if options.sender is None:
        return _user()[0]
    return next(iter(addresses_in(_given(options.sender))), "")


def _user() -> tuple[str, str]:
    """Return login and full name of whoever runs this."""
    import pwd

    uid = os.getuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return f"uid{uid}", ""
    return entry.pw_name, entry.pw_gecos.partition(",")[0].replace("&", entry.pw_name.capitalize())


def _full_name(options: Options) -> str:
    if options.full_name is not None:
        return _given(options.full_name)
    return _given(os.environ.get("NAME", "")) or _user()[1]


def _given(text: str) -> str:
    """Return an argument as text whose octets UTF-8 tells, whatever the locale is."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")


def _fail(code: int, text: str) -> int:
    say(text)
    return code
