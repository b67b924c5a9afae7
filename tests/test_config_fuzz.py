"""Whatever stands in a file: settings, or faults in plain words, and nothing else."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proxy.config import ConfigError, Settings, load
from proxy.config.fields import is_host_name
from proxy.config.section import section_in
from proxy.mail.address import ascii_domain, normal_address

KEYS = sorted(
    {
        field.alias or name
        for section in Settings.model_fields.values()
        if (table := section_in(section.annotation)) is not None
        for name, field in table.model_fields.items()
    }
    | {"outbound", "address", "cert", "tls", "env", "file", "quux"}
)
TEXTS = st.one_of(
    st.sampled_from(["", "10MB", "30s", "a@example.com", "127.0.0.1:25", "outbound", "PLAIN", "*"]),
    st.text(st.characters(codec="utf-8"), max_size=10),
)
SCALARS = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), TEXTS)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=8,
)
TABLES = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4)
FILES = st.dictionaries(
    st.sampled_from(sorted(Settings.model_fields)),
    st.one_of(VALUES, TABLES, st.lists(TABLES, max_size=3), st.dictionaries(TEXTS, TABLES)),
    max_size=4,
)
FOREIGN = ("Input should", "pydantic", "validation error", "Value error", "Traceback")


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quote(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)  # TOML writes inf and nan as Python does
    return quote(value) if isinstance(value, str) else json.dumps(value)


def quote(text: str) -> str:
    return '"' + "".join(f"\\U{ord(letter):08x}" for letter in text) + '"'


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FILES)
@example({"streams": {"": {}}})
@example({"rules": [{"stream": "x"}, 5, {"name": {}}]})
@example({"listen": {"smtp": [{"tls": {"cert": "a"}}, {"tls": {}}]}})
def test_a_file_is_loaded_or_its_faults_are_told(tables: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "franker.toml"
        file.write_text("".join(f"{key} = {toml(one)}\n" for key, one in tables.items()))
        text, settings = outcome(file)
    if settings is None:
        first, *faults = text.split("\n")
        assert f": {len(faults)} fault" in first
        assert faults
        assert all(fault.startswith("  ") and fault.isprintable() for fault in faults)
        assert not any(word in text for word in FOREIGN)
    else:
        assert "outbound" in settings.streams
        assert all(rule.stream in settings.streams for rule in settings.rules)


@settings(deadline=None)
@given(st.text(st.characters(categories=["L", "M", "N"]), min_size=1, max_size=4))
@example("com\u037a")  # a letter that becomes a space and a letter
@example("\u0130")
@example("\u24881")  # a number with its dot
def test_a_domain_that_the_configuration_takes_has_an_ascii_form(label: str) -> None:
    if is_host_name(domain := f"example.{label}"):
        assert is_host_name(ascii_domain(domain))
        assert normal_address(f"a@{domain}") == f"a@{ascii_domain(domain)}"


def outcome(file: Path) -> tuple[str, Settings | None]:
    try:
        return "", load(file, {}).settings
    except ConfigError as error:
        return str(error), None
