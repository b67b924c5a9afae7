"""Mail for and from people of this host, as cron and other local programs send it.

Such addresses have no domain, or that of the host itself; Postmark takes neither. [local] says
where they go and what stands in their place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proxy.config.local_names import LOOPBACK_NAMES
from proxy.config.model import Local
from proxy.mail.address import (
    AddressError,
    NonASCIIMailboxError,
    ascii_domain,
    is_bare_name,
    normal_address,
    split_address,
)
from proxy.mail.refusal import Reason, non_ascii_mailbox, refused, shown


@dataclass(frozen=True, slots=True)
class LocalNames:
    """[local] ready to be asked: names in lower case, addresses as Postmark takes them.

    `host` is this host's own name, as it stands in Received and after "on" in a display name.
    """

    host: str
    names: frozenset[str]
    domain: str
    from_: str
    postmaster: str
    aliases: Mapping[str, tuple[str, ...]]

    def is_local(self, address: str) -> bool:
        """Say whether `address` has no domain or one of this host's names."""
        domain = split_address(address)[1]
        return not domain or domain.lower().removesuffix(".") in self.names

    def recipients(self, address: str) -> tuple[str, ...]:
        """Return whom mail for `address` goes to: itself, unless it is local.

        Raises:
            RefusedError: nobody is named for it, or it is no address that Postmark takes.
        """
        if not self.is_local(address):
            return (checked(address, "recipient"),)
        name = split_address(address)[0]
        if not is_bare_name(name):
            raise refused(501, "5.1.3", f'Bad recipient address "{shown(address)}"', "recipient")
        found = self._named(name)
        if not found:
            raise refused(
                550,
                "5.1.1",
                f'"{shown(address)}" is a name of this host and nobody is named for its mail: '
                "set local.postmaster, or the name in local.aliases, in franker.toml",
                "local_recipient",
            )
        return found

    def _named(self, name: str) -> tuple[str, ...]:
        """Follow the aliases of `name`; mailboxes of this host are the postmaster's."""
        found: dict[str, None] = {}
        followed: set[str] = set()
        # With its domain: a quoted name may hold an @ of its own, which leads nowhere else.
        pending = [f"{name}@localhost"]
        while pending:
            address = pending.pop()
            local, domain = split_address(address)
            key = local.lower()
            if domain and not self.is_local(address):
                found[address] = None
            elif key not in followed:
                followed.add(key)
                targets = self.aliases.get(key, ())
                pending.extend(reversed(targets))
                if not targets and self.postmaster:
                    found[self.postmaster] = None
        if not found and self.postmaster:
            return (self.postmaster,)  # aliases that go round in circles
        return tuple(found)


def checked(address: str, role: Reason) -> str:
    """Return a `role`'s ("sender", "recipient") address as Postmark takes it.

    Raises:
        RefusedError: it is none, or its mailbox is not ASCII.
    """
    try:
        return normal_address(address)
    except NonASCIIMailboxError:
        raise non_ascii_mailbox(address) from None
    except AddressError:
        enhanced = "5.1.7" if role == "sender" else "5.1.3"
        raise refused(501, enhanced, f'Bad {role} address "{shown(address)}"', role) from None


def parse_aliases(text: str) -> dict[str, tuple[str, ...]]:
    """Return the addresses in a file of /etc/aliases' form, by name in lower case.

    Commands, files and includes are no addresses and are left out; so is a name that has nothing
    else, whose mail then is the postmaster's.
    """
    lines: list[str] = []
    for line in text.splitlines():
        if line[:1] in (" ", "\t") and lines and not line.lstrip().startswith("#"):
            lines[-1] += line
        elif line.strip() and not line.startswith("#"):
            lines.append(line)
    aliases: dict[str, tuple[str, ...]] = {}
    for line in lines:
        name, colon, targets = line.partition(":")
        addresses = tuple(filter(_is_target, (item.strip() for item in targets.split(","))))
        if colon and addresses:
            aliases[name.strip().strip('"').lower()] = addresses
    return aliases


def _is_target(text: str) -> bool:
    if "@" not in text:
        return is_bare_name(text) and text[0] not in '/|"'
    try:
        normal_address(text)
    except AddressError:
        return False
    return True


def compile_local(local: Local, host_names: Sequence[str], aliases_text: str) -> LocalNames:
    """Return [local] ready to be asked.

    `host_names` are the host's own names, its full one first; `aliases_text` is what stands in
    `local.aliases_file`. A name in local.aliases counts for more than one in the file.
    """
    aliases = parse_aliases(aliases_text)
    for name, value in local.aliases.items():
        aliases[name.lower()] = value
    names = (*LOOPBACK_NAMES, *host_names, *local.names)
    return LocalNames(
        host=host_names[0] if host_names else "localhost",
        names=frozenset(name.lower().removesuffix(".") for name in names),
        domain=ascii_domain(local.domain),
        from_=_final(local.from_),
        postmaster=_final(local.postmaster),
        aliases={
            name: tuple(_final(target) if "@" in target else target for target in targets)
            for name, targets in aliases.items()
        },
    )


def _final(address: str) -> str:
    return normal_address(address) if address else ""
