"""What a person is told when `franker run` is ready. Standard library only, as its parent is."""


def welcome(facts: dict[str, dict[str, str]]) -> str:
    """Return what a person is told when everything is ready: where to send, and how to try it."""
    proxy, sandbox = facts.get("proxy", {}), facts.get("sandbox")
    smtp = proxy.get("SMTP", "").split()
    lines = ["", f"Franker is ready. Send mail to {' or '.join(smtp)}, without password or TLS."]
    if sandbox is not None:
        where = sandbox.get("HTTP", "")
        lines.append("It goes to a stand-in for Postmark on this machine and no further.")
        if where:
            lines.append(f"What the stand-in took: http://{where}/")
    elif missing := proxy.get("NO_LOGIN", ""):
        lines.append(f"No token: {missing} is not set; mail is kept and waits.")
    else:
        lines.append("It goes to Postmark.")
    first = next((address for address in smtp if not address.startswith("unix:")), "")
    if first:
        lines += ["Try it:", "", "  " + curl_line(first)]
    return "\n".join([*lines, "", ""])


def curl_line(address: str) -> str:
    """Return a command that sends one message to `address` and can be pasted into a shell."""
    message = r"From: app@example.com\r\nTo: you@example.net\r\nSubject: Hello\r\n\r\nHello.\r\n"
    return (
        f"printf '{message}' | curl -sS smtp://{address} "
        "--mail-from app@example.com --mail-rcpt you@example.net -T -"
    )
