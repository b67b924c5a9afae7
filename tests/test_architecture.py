"""The imports of the program, read from its source, hold the shape that the design gives it."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.processes import ROOT

LEAVES = ("config", "log", "metrics", "mail", "queue", "alerts", "web", "reloading")
PURE = (
    "proxy.config.changes",
    "proxy.config.checks",
    "proxy.config.fields",
    "proxy.log.lines",
    "proxy.mail",
    "proxy.queue.apart",
    "proxy.queue.history",
    "proxy.queue.selection",
    "proxy.routing",
    "proxy.submission",
    "proxy.rerouting",
    "proxy.undeliverable",
    "proxy.alerts.standing",
    "proxy.listener.commands",
    "proxy.listener.content",
    "proxy.sandbox.checks",
    "proxy.sandbox.listing",
    "proxy.sendmail.addresses",
    "proxy.sendmail.letter",
    "proxy.sendmail.message",
    "proxy.sendmail.options",
    "worker.claim",
    "worker.claims.liveness",
    "worker.congestion",
    "worker.verdict",
    "worker.schedule",
    "worker.pauses",
    "worker.relay",
    "worker.notices.digest",
    "worker.outcomes.asking",
    "worker.outcomes.findings",
    "worker.outcomes.silence",
    "worker.smarthost.endpoints",
    "worker.replies",
)
IO_MODULES = {"socket", "ssl", "asyncio", "subprocess", "selectors", "redis", "aiohttp", "aiosmtpd"}
IO_MODULES |= {
    "aiosmtplib",
    "rq",
    "uvloop",
    "http.client",
    "urllib.request",
    "signal",
    "threading",
    "tempfile",
}
CACHES = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
TREE_FOLDERS = (
    *("proxy", "worker", "tests", "docs", "systemd", "packaging", "manual", "containers"),
    *("monitoring", "share", "benchmarks", ".ci"),
)


def modules(package: str) -> Iterator[str]:
    for path in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name.removesuffix(".__init__")


MODULES = [*modules("proxy"), *modules("worker")]


def source(module: str) -> Path:
    path = ROOT / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def imports(module: str) -> frozenset[str]:
    """Every module that `module` imports, also inside functions and for types."""
    path = source(module)
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *base.split(".")])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in MODULES else base.strip("."))
    return frozenset(found)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def reached(module: str) -> dict[str, str]:
    """All that comes with importing `module`, each with what it is there for: the way there.

    A part is reached by the front door of its package, save from within that package.
    """
    found = {module: module}
    to_see = [module]
    while to_see:
        one = to_see.pop()
        for name in imports(one) if one in MODULES else ():
            doors = [each for each in MODULES if within(name, each) and not within(one, each)]
            for each in (name, *doors):
                if each not in found:
                    found[each] = f"{each} <- {found[one]}"
                    to_see.append(each)
    return found


def importers(package: str) -> set[str]:
    return {m for m in MODULES if any(within(name, package) for name in imports(m))}


def test_leaves_import_only_leftwards() -> None:
    wrong = []
    for module in MODULES:
        for position, leaf in enumerate(LEAVES):
            if within(module, f"proxy.{leaf}"):
                allowed = tuple(f"proxy.{name}" for name in LEAVES[: position + 1])
                wrong += [
                    f"{module} imports {name}"
                    for name in imports(module)
                    if within(name, "proxy") or within(name, "worker")
                    if not any(within(name, each) for each in allowed)
                ]
    assert wrong == []


def test_the_worker_knows_only_the_leaves_of_the_proxy() -> None:
    allowed = tuple(f"proxy.{leaf}" for leaf in LEAVES)
    wrong = [
        f"{module} imports {name}"
        for module in MODULES
        if within(module, "worker")
        for name in imports(module)
        if within(name, "proxy") and not any(within(name, leaf) for leaf in allowed)
    ]
    assert wrong == []


def test_the_proxy_knows_the_worker_only_in_the_command_line_and_there_only_in_functions() -> None:
    assert {
        m for m in importers("worker") if within(m, "proxy") and not within(m, "proxy.cli")
    } == (set())
    for module in MODULES:
        if within(module, "proxy.cli"):
            top = ast.parse(source(module).read_text(encoding="utf-8")).body
            names = [n.module or "" for n in top if isinstance(n, ast.ImportFrom)]
            names += [alias.name for n in top if isinstance(n, ast.Import) for alias in n.names]
            assert not [name for name in names if within(name, "worker")], module


def test_modules_import_each_other_in_no_circle() -> None:
    left = {m: {name for name in imports(m) if name in MODULES and name != m} for m in MODULES}
    while free := {m for m in left if not left[m] & left.keys()}:
        left = {m: names for m, names in left.items() if m not in free}
    assert left.keys() == set()


def test_nothing_imports_the_command_line() -> None:
    assert {m for m in importers("proxy.cli") if not within(m, "proxy.cli")} == set()


def test_package_file_of_proxy_stays_empty() -> None:
    assert source("proxy").read_text(encoding="utf-8") == ""


def test_only_the_listener_and_the_sandbox_know_aiosmtpd() -> None:
    users = importers("aiosmtpd")
    assert users
    assert {m for m in users if not m.startswith(("proxy.listener", "proxy.sandbox"))} == set()


def test_only_the_smarthost_knows_aiosmtplib() -> None:
    users = importers("aiosmtplib")
    assert users
    assert {m for m in users if not within(m, "worker.smarthost")} == set()


def test_nothing_that_the_smarthost_uses_of_the_worker_knows_the_smarthost() -> None:
    inside = {m for m in MODULES if within(m, "worker.smarthost")}
    used = {n for m in inside for n in imports(m) if within(n, "worker")} - inside
    assert used
    assert [way for n in used for each, way in reached(n).items() if each in inside] == []


def test_only_claims_knows_rq() -> None:
    assert {m for m in importers("rq") if not within(m, "worker.claims")} == set()


@pytest.mark.parametrize("package", PURE)
def test_what_decides_is_pure(package: str) -> None:
    members = [module for module in MODULES if within(module, package)]
    assert members
    for module in members:
        way = reached(module)
        wrong = [way[name] for name in way if any(within(name, each) for each in IO_MODULES)]
        assert wrong == []


def test_the_supervisor_is_standard_library_only() -> None:
    parts = {"proxy.welcome", "proxy.run_file", "proxy.terminal"}
    names = imports("proxy.supervisor").union(*map(imports, parts))
    top = {name.partition(".")[0] for name in names - parts}
    assert top <= set(sys.stdlib_module_names)


def test_sendmail_is_standard_library_only_and_knows_nothing_of_the_rest() -> None:
    members = [module for module in MODULES if within(module, "proxy.sendmail")]
    names = {name for module in members for name in imports(module)}
    ours = {name for name in names if within(name, "proxy")}
    assert all(within(name, "proxy.sendmail") for name in ours)
    assert {name.partition(".")[0] for name in names - ours} <= set(sys.stdlib_module_names)


def test_a_file_is_one_noun_of_the_field_and_rarely_above_300_lines() -> None:
    lengths = {m: len(source(m).read_text(encoding="utf-8").splitlines()) for m in MODULES}
    assert {m: n for m, n in lengths.items() if n > 450} == {}
    assert sum(n > 300 for n in lengths.values()) <= len(lengths) // 10
    vague = {"utils", "util", "helpers", "common", "misc", "manager"}
    assert [m for m in MODULES if set(m.split(".")) & vague] == []


def test_the_tree_names_no_machine_and_no_package_index() -> None:
    private = re.compile(
        r"/wor[k]/|/roo[t]/|/home/[a-z]|index-url|find-links|registry\.npm[j]s|files\.python[h]osted"
    )
    this = Path(__file__).name
    wrong = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for folder in TREE_FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.name != this
        if not CACHES & set(path.parts)
        if (match := private.search(path.read_bytes().decode("utf-8", "replace")))
    ]
    assert wrong == []


def test_everything_that_is_not_python_travels_in_the_wheel() -> None:
    import tomllib

    described = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = described["tool"]["setuptools"]["package-data"]["*"]
    left_out = [
        str(path.relative_to(ROOT))
        for folder in ("proxy", "worker")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
        if not any(path.match(pattern) for pattern in patterns)
    ]
    assert left_out == []
