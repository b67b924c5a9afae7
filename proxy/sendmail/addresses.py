"""Addresses out of a header field or an argument, as sendmail(1) has always read them. Pure.

Text is octets decoded as UTF-8 with surrogates, so that what is no UTF-8 goes through unharmed.
"""

_WHITE = " \t\r\n"


def addresses_in(text: str) -> list[str]:
    """Return the addresses in a list of mailboxes and groups (RFC 5322 §3.4), in order.

    Display names, comments, routes and group names are left out. Words without brackets are an
    address each: "a b@example.com" is two. Control characters become "?".
    """
    found: list[str] = []
    words: list[str] = []
    bracketed: str | None = None
    joined = False  # the next word belongs to the last: it follows an @ or a dot
    at, end = 0, len(text)

    def finish() -> None:
        nonlocal bracketed, joined
        found.extend(filter(None, words if bracketed is None else [bracketed]))
        words.clear()
        bracketed, joined = None, False

    while at < end:
        letter = text[at]
        if letter in _WHITE:
            at += 1
        elif letter in ",;":
            finish()
            at += 1
        elif letter == ":":
            words.clear()  # the name of a group, or a route
            joined = False
            at += 1
        elif letter == "(":
            at = _after_comment(text, at)
        elif letter == "<":
            inner, at = _bracketed(text, at)
            if bracketed is None:
                bracketed = inner
        elif letter in ">)":
            at += 1
        else:
            word, at = _word(text, at)
            if words and (joined or word[0] in "@."):
                words[-1] += word
            else:
                words.append(word)
            joined = word[-1] in "@."
    finish()
    return [_printable(address) for address in found]


def _word(text: str, at: int) -> tuple[str, int]:
    """Return what stands from `at` on up to white space or a special, quoted strings whole."""
    start, end = at, len(text)
    while at < end and text[at] not in " \t\r\n,;:<>()":
        at = _after_quoted(text, at) if text[at] == '"' else at + 1
    return text[start:at], at


def _bracketed(text: str, at: int) -> tuple[str, int]:
    """Return the address in the brackets that begin at `at`, and where they end."""
    at += 1
    kept: list[str] = []
    while at < len(text) and text[at] != ">":
        if text[at] == '"':
            after = _after_quoted(text, at)
            kept.append(text[at:after])
            at = after
        elif text[at] == "(":
            at = _after_comment(text, at)
        else:
            if text[at] == ":" and kept[:1] == ["@"]:
                kept.clear()  # a source route, RFC 5322 §4.4
            elif text[at] not in _WHITE:
                kept.append(text[at])
            at += 1
    return "".join(kept).replace("<", ""), at + 1


def _after_quoted(text: str, at: int) -> int:
    at += 1
    while at < len(text) and text[at] != '"':
        at += 2 if text[at] == "\\" else 1
    return min(at + 1, len(text))


def _after_comment(text: str, at: int) -> int:
    depth = 0
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
        elif letter == "(":
            depth += 1
        elif letter == ")":
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    return at


def _printable(text: str) -> str:
    return "".join("?" if letter < " " or letter == "\x7f" else letter for letter in text)
