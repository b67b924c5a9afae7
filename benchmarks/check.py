"""The model beside what was measured: set by three points, compared with all the others. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from benchmarks.figures import by_process
from benchmarks.model import Costs, Model, Site
from benchmarks.results import Result
from benchmarks.scenarios import FRANKER, Drain, Flow, Load, Scenario

FLOW, NEAR, FAR = "sessions-50", "queue", "queue-30ms"
"""The points that set the model: what a message costs while mail comes, what it costs when it only
leaves, and what a connection takes beyond the round trip."""

_FEW_SESSIONS = 20  # below, it is the client's waiting that forms the limit


@dataclass(frozen=True, slots=True)
class Point:
    """A scenario's measured rate, the expected one, and what the model says forms the limit."""

    name: str
    title: str
    measured: float
    expected: float
    limit: str
    sets_model: bool

    @property
    def error(self) -> float:
        """How far off the model is, as a share of what was measured."""
        return self.expected / self.measured - 1

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Return what `as_json` wrote."""
        return cls(**said)


def points(plan: Iterable[Scenario], results: Mapping[str, Result], cores: int) -> list[Point]:
    """Return the points of `plan` that the model speaks of and that were measured.

    [] where one of those that set the model is missing.
    """
    scenarios = {one.name: one for one in plan}
    measured = {name: one.measured(FRANKER, "relayed") for name, one in results.items()}
    rates = {name: one.median for name, one in measured.items() if one is not None}
    if not {FLOW, NEAR, FAR} <= scenarios.keys() & rates.keys():
        return []

    def costs(name: str) -> Model:
        return Model(Costs.of(by_process(results[name].median_sample(FRANKER), "cpu")))

    coming = costs(FLOW).with_use(site(scenarios[FLOW], cores), rates[FLOW])
    leaving = costs(NEAR).with_use(site(scenarios[NEAR], cores), rates[NEAR])
    leaving = leaving.with_wire(site(scenarios[FAR], cores), rates[FAR])
    found = []
    for name, scenario in scenarios.items():
        if name not in rates or not _modelled(scenario):
            continue
        model = leaving if isinstance(scenario.what, Drain) else coming
        said = model.expect(site(scenario, cores))
        sets = name in (FLOW, NEAR, FAR)
        found.append(Point(name, scenario.title, rates[name], said.rate, said.limit, sets))
    return found


def site(scenario: Scenario, cores: int) -> Site:
    """Return where `scenario` ran, as the model sees it."""
    what = scenario.what
    assert isinstance(what, Flow | Drain)
    setup = what.setup
    return Site(cores, setup.connections, what.delay_ms / 1000, setup.proxies, setup.workers)


def _modelled(scenario: Scenario) -> bool:
    what = scenario.what
    if not isinstance(what, Flow | Drain):
        return False
    load = what.load
    return load.size == Load().size and not load.fresh and load.sessions >= _FEW_SESSIONS
