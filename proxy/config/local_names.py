"""Names by which every host means itself: mail to them must never go out."""

LOOPBACK_NAMES = (
    "localhost",
    "localhost.localdomain",
    "localhost4",
    "localhost6",
    "ip6-localhost",
    "[127.0.0.1]",
    "[::1]",
    "[ipv6:::1]",
)
