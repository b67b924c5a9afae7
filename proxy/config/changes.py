"""What differs between two configurations, and what of it a running process can take. Pure."""

from collections.abc import Collection

from proxy.config.model import Listen, Settings
from proxy.config.section import Section


def changed_keys(before: Settings, after: Settings) -> tuple[str, ...]:
    """Return the keys whose values differ, as in "notify.to", "streams.billing", "rules"."""
    found = []
    for name in Settings.model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        if isinstance(old, Section):
            keys = type(old).model_fields.items()
            differ = (key.alias or part for part, key in keys if _differ(old, new, part))
        elif isinstance(old, dict):
            differ = (key for key in dict.fromkeys((*old, *new)) if old.get(key) != new.get(key))
        else:
            found.append(name)
            continue
        found += (f"{name}.{key}" for key in differ)
    return tuple(found)


def as_far_as_possible(
    running: Settings, after: Settings, fixed: Collection[str]
) -> tuple[Settings, tuple[str, ...]]:
    """Return what holds from now on in a process that cannot change `fixed`, and what must wait.

    `fixed` are keys ("listen.http") or whole sections ("redis"); what differs of them is left as
    it is `running` and named. Of `listen.smtp` only the addresses are fixed: what is said of an
    address (allow, auth, tls) can change.
    """
    waiting = []
    for key in changed_keys(running, after):
        section, _, name = key.partition(".")
        if key not in fixed and section not in fixed:
            continue
        old = getattr(running, section)
        if name:
            table = getattr(after, section)
            value = getattr(old, name)
            if key == "listen.smtp":
                value = _same_addresses(old, table)
                if value == table.smtp:
                    continue
            old = table.model_copy(update={name: value})
        after = after.model_copy(update={section: old})
        waiting.append(key)
    return after, tuple(waiting)


def _same_addresses(old: Listen, new: Listen) -> object:
    """Return `old`'s addresses with what `new` says of them; `new`'s own if none came or went."""
    said = {one.address: one for one in new.smtp}
    kept = tuple(said.get(one.address, one) for one in old.smtp)
    return new.smtp if set(kept) == set(new.smtp) else kept


def _differ(old: Section, new: Section, part: str) -> bool:
    return bool(getattr(old, part) != getattr(new, part))
