"""Who a message's header says it is from and to, in a form that Postmark takes."""

from dataclasses import dataclass, field

from proxy.mail.address import (
    AddressError,
    Mailbox,
    NonASCIIMailboxError,
    is_bare_name,
    normal_address,
    parse_mailboxes,
    split_address,
)
from proxy.mail.fields import Header, unfolded
from proxy.mail.limits import FROM
from proxy.mail.local import LocalNames, checked
from proxy.mail.refusal import RefusedError, refused, shown
from proxy.mail.repairs import Repair
from proxy.mail.words import decode_words, encode_mailbox, fold, join_mailboxes


@dataclass(frozen=True, slots=True)
class Verified:
    """Domains and addresses, in lower case, that Postmark accepts as From; none: not known."""

    domains: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.domains or self.addresses)

    def covers(self, address: str) -> bool:
        """Say whether Postmark accepts `address` as From, as far as the configuration knows."""
        address = address.lower()
        return address in self.addresses or split_address(address)[1] in self.domains


@dataclass(frozen=True, slots=True)
class Origin:
    """What From has to be settled by, besides what it says.

    `reverse_path` stands in for a missing From; `instead` is the rule's address, "" for none;
    `host` is where the message was written, for display names.
    """

    local: LocalNames
    verified: Verified
    reverse_path: str
    instead: str
    host: str


@dataclass(slots=True)
class Settled:
    """The address of the final From, which repairs it took, and what it was before."""

    address: str = ""
    kinds: set[Repair] = field(default_factory=set)
    replaced: dict[str, str] = field(default_factory=dict)
    in_reply_to: bool = False  # what From was stands in Reply-To now


def settle_from(header: Header, mailboxes: list[Mailbox], origin: Origin) -> Settled:
    """Give the message one From that Postmark takes; `mailboxes` are those of the one it has.

    Raises:
        RefusedError: no such address can be found; the text names the key that would help.
    """
    settled = Settled()
    found = [mailbox for mailbox in mailboxes if _usable(mailbox.address)]
    if not found:
        name = mailboxes[0].name if mailboxes else ""
        found = [Mailbox(name, _stand_in(origin))]
        settled.kinds.add("from")
    if origin.instead:
        final = [_by_rule(header, found[0], origin, settled)]
    else:
        final = [_settle_mailbox(mailbox, origin, settled) for mailbox in found]
    final = [_short(mailbox, settled) for mailbox in final]
    settled.address = final[0].address
    if final != mailboxes:
        _write_from(header, final, origin, settled)
    for mailbox in final:
        if origin.verified and not origin.verified.covers(mailbox.address):
            raise refused(
                550,
                "5.7.1",
                f'Postmark does not accept "{shown(mailbox.address)}" as From: put its domain or '
                "address into postmark.verified, once Postmark has it, or set From by a rule",
                "not_verified",
            )
    return settled


def _short(mailbox: Mailbox, settled: Settled) -> Mailbox:
    room = FROM - len(mailbox.address) - len('"" <>')
    if len(mailbox.name) <= room or len(name := decode_words(mailbox.name)) <= room:
        return mailbox
    settled.kinds.add("limits")
    return Mailbox(name[: max(room, 0)].rstrip(), mailbox.address)


def _usable(address: str) -> bool:
    try:
        normal_address(address)
    except NonASCIIMailboxError:
        return True  # it is meant as an address, and refused as such
    except AddressError:
        return is_bare_name(address)
    return True


def _stand_in(origin: Origin) -> str:
    address = origin.reverse_path or origin.instead or origin.local.from_
    if not address:
        raise refused(
            550,
            "5.7.1",
            "The message has neither a From field nor a sender: set local.from in franker.toml",
            "local_from",
        )
    return address


def _is_local(address: str, origin: Origin) -> bool:
    return origin.local.is_local(address) and not origin.verified.covers(address)


def _qualified(address: str, origin: Origin) -> str:
    """Return the address to write for one of this host's; "" when the configuration has none."""
    name, domain = split_address(address)
    local = origin.local
    if not domain and local.domain:
        address = f"{name}@{local.domain}"
        if not _is_local(address, origin):
            return address
    if local.from_:
        return local.from_
    return f"{name}@{local.domain}" if local.domain else ""


def _settle_mailbox(mailbox: Mailbox, origin: Origin, settled: Settled) -> Mailbox:
    if not _is_local(mailbox.address, origin):
        address = checked(mailbox.address, "sender")
        if address == mailbox.address:
            return mailbox
        settled.kinds.add("idn")
        return Mailbox(mailbox.name, address)
    settled.kinds.add("local")
    address = _qualified(mailbox.address, origin)
    if not address:
        raise refused(
            550,
            "5.7.1",
            f'The From address "{shown(mailbox.address)}" is a name of this host, which Postmark '
            "does not accept: set local.from (or local.domain) in franker.toml",
            "local_from",
        )
    if address == origin.local.from_:
        return Mailbox(_name_on_host(mailbox, origin), address)
    return Mailbox(mailbox.name, checked(address, "sender"))


def _name_on_host(mailbox: Mailbox, origin: Origin) -> str:
    name = decode_words(mailbox.name) or split_address(mailbox.address)[0]
    return f"{name} on {origin.host}"


def _by_rule(header: Header, old: Mailbox, origin: Origin, settled: Settled) -> Mailbox:
    if old.address.lower() == origin.instead.lower():
        return old
    if _is_local(old.address, origin):
        return Mailbox(_name_on_host(old, origin), origin.instead)
    if b"reply-to" not in header and b"from" in header:
        address = checked(old.address, "sender")
        header.add(b"Reply-To", b" " + encode_mailbox(decode_words(old.name), address))
        settled.in_reply_to = True
    return Mailbox(old.name, origin.instead)


def _write_from(header: Header, final: list[Mailbox], origin: Origin, settled: Settled) -> None:
    old = header.first(b"from")
    written = [encode_mailbox(decode_words(one.name), one.address) for one in final]
    header.set(b"From", join_mailboxes(list(dict.fromkeys(written))))
    text = unfolded(old or b"")
    if not text:
        return
    settled.replaced["From"] = decode_words(text.decode("utf-8", errors="replace"))
    own = (origin.local.from_, origin.instead)
    if settled.address in own and not settled.in_reply_to:
        header.set(b"X-Original-From", fold(text, b"X-Original-From"))


def settle_others(header: Header, origin: Origin, from_address: str) -> set[Repair]:
    """Give Sender, Reply-To, To and Cc addresses that Postmark takes; return the repairs.

    Local ones become what [local] has for them; where it has nothing they go, since the envelope
    alone decides who gets the message.

    Raises:
        RefusedError: a mailbox in one of them is not ASCII.
    """
    kinds: set[Repair] = set()
    for name in (b"to", b"cc", b"sender", b"reply-to"):
        value = header.first(name)
        if value is None:
            continue
        mailboxes = parse_mailboxes(unfolded(value).decode("utf-8", errors="replace"))
        if all(_stays(mailbox.address, origin.local) for mailbox in mailboxes):
            continue
        final: list[Mailbox] = []
        for mailbox in mailboxes:
            final += _settle_other(name, mailbox, origin)
        if final == mailboxes:
            continue
        local = any(_is_local(mailbox.address, origin) for mailbox in mailboxes)
        kinds.add("local" if local else "idn")
        final = [mailbox for mailbox in final if _usable(mailbox.address)]
        if name == b"sender" and [one.address for one in final] == [from_address]:
            final = []
        if final:
            written = [encode_mailbox(decode_words(one.name), one.address) for one in final]
            header.set(name, join_mailboxes(list(dict.fromkeys(written))))
        elif name == b"to":
            header.set(name, b" undisclosed-recipients:;")
        else:
            header.remove(name)
    return kinds


def _stays(address: str, local: LocalNames) -> bool:
    return address.isascii() and not local.is_local(address)


def _settle_other(name: bytes, mailbox: Mailbox, origin: Origin) -> list[Mailbox]:
    address = mailbox.address
    if not _usable(address):
        return [mailbox]  # nothing that we could put right
    if not _is_local(address, origin):
        return [Mailbox(mailbox.name, checked(address, "recipient"))]
    local, domain = origin.local, origin.local.domain
    if name in (b"to", b"cc"):
        try:
            return [Mailbox(mailbox.name, one) for one in local.recipients(address)]
        except RefusedError:
            pass  # not among the recipients, or it had been refused before
    if domain:
        return [Mailbox(mailbox.name, f"{split_address(address)[0]}@{domain}")]
    return []
