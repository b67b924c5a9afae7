"""From measured rounds to what is said about them: medians, ratios, the model, tables, picture."""

import json
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import plan
from benchmarks.__main__ import write, written_again
from benchmarks.asked import arguments, chosen
from benchmarks.check import FAR, FLOW, NEAR, points
from benchmarks.figures import FIGURES, by_process
from benchmarks.measures.drain import rate
from benchmarks.measures.latency import percentile
from benchmarks.model import Costs, Model, Site
from benchmarks.plot import PANELS, panels, svg
from benchmarks.report import group_table, report
from benchmarks.results import Measured, Result
from benchmarks.scenarios import BOTH, FRANKER, POSTFIX, Backlog, Drain, Flow, Load, Scenario
from benchmarks.targets import TARGETS, outcomes

COSTS = Costs(proxy=100, worker=80, redis=60, beside=60)


def result(name: str = "sessions-20", **figures: tuple[list[float], list[float]]) -> Result:
    """A result with the figures of Franker and of Postfix, a number for each round."""
    samples = {
        system: [
            {key: values[number][at] for key, values in figures.items()}
            for at in range(len(next(iter(figures.values()))[number]))
        ]
        for number, system in enumerate(BOTH)
    }
    return Result(name, "flow", "20 sessions", samples)


def test_a_figure_is_the_median_of_its_rounds_with_their_range() -> None:
    measured = result(relayed=([3000, 2000, 2500], [500])).measured(FRANKER, "relayed")
    assert measured == Measured(2500, 2000, 3000)
    assert measured.spread == pytest.approx(0.4)


def test_a_ratio_is_of_medians_and_its_range_of_rounds_that_followed_each_other() -> None:
    ratio = result(relayed=([3000, 2000, 2500], [500, 250, 1000])).ratio("relayed")
    assert ratio == Measured(5, 2.5, 8)


def test_a_ratio_holds_with_fewer_rounds_of_one_system() -> None:
    assert result(relayed=([3000, 2000, 2500], [500])).ratio("relayed") == Measured(5, 6, 6)


def test_what_was_not_measured_has_no_figure_and_no_ratio() -> None:
    one = result(relayed=([3000], []))
    assert one.measured(POSTFIX, "relayed") is one.ratio("relayed") is None
    assert one.measured(FRANKER, "kept") is None


def test_a_result_is_the_same_after_it_was_written_and_read() -> None:
    one = result(relayed=([3000, 2000], [500]))
    assert Result.from_json(json.loads(json.dumps(one.as_json()))) == one


def test_numbers_by_process_come_largest_first() -> None:
    sample = {"cpu.redis": 10.0, "cpu.proxy": 30.0, "peak.proxy": 1.0, "relayed": 5.0}
    assert list(by_process(sample, "cpu").items()) == [("proxy", 30.0), ("redis", 10.0)]


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(one) for one in range(1, 201)]
    assert (percentile(values, 50), percentile(values, 99)) == (100, 198)
    assert percentile([7.0], 99) == 7.0


def test_the_rate_of_a_drain_counts_from_its_first_message() -> None:
    assert rate({"first": 10.0, "at": 12.0}, 101) == 50
    with pytest.raises(RuntimeError):
        rate({"first": 10.0, "at": 10.0}, 1)


def test_the_table_shows_medians_ranges_and_ratios() -> None:
    text = group_table([result(relayed=([3000, 2000, 2500], [500, 500, 500]))], ["relayed"])
    assert "| 20 sessions | relayed, messages/s | 2,500 (2,000-3,000) | 500     | 5.00" in text


def test_a_target_compares_with_postfix_or_with_another_scenario() -> None:
    found = {
        "sessions-20": result(relayed=([3000], [500])),
        "outage": result("outage", relayed=([1000], [1]), first=([20], [300])),
        "queue": result("queue", relayed=([2000], [500]), kept=([3000], [500])),
    }
    reached = {one.target.words: (one.value, one.reached) for one in outcomes(found)}
    assert reached == {
        "kept and relayed, 20 sessions": (6, True),
        "kept only, 50 sessions": (6, True),
        "after an outage: first message": (20, False),
        "after an outage: rate, to that of a queue": (0.5, False),
    }


def test_a_limit_that_is_kept_exactly_is_reached() -> None:
    found = {"outage": result("outage", first=([15], [300]))}
    assert [one.reached for one in outcomes(found)] == [True]
    found = {"sessions-20": result(relayed=([2500], [500]))}
    assert [one.reached for one in outcomes(found)] == [True]


def test_the_cores_the_processes_and_the_wire_limit_the_rate_each_in_its_place() -> None:
    model = Model(COSTS, own_s=0.002)
    near = Site(cores=2)
    assert model.expect(near).limit == "cores"
    assert model.expect(near).rate == pytest.approx(2e6 / 300)
    many = Site(cores=16)
    assert model.expect(many).limit == "proxies"
    assert model.expect(many).rate == pytest.approx(10_000)
    assert model.expect(Site(16, proxies=4, workers=4)).limit == "Redis"
    far = Site(cores=2, round_trip_s=0.03, connections=16)
    assert model.expect(far).limit == "connections"
    assert model.expect(far).rate == pytest.approx(500)


def test_a_model_set_by_a_point_expects_that_point() -> None:
    model = Model(COSTS).with_use(Site(2), 5000).with_wire(Site(2, 10, 0.03), 300)
    assert model.expect(Site(2)).rate == pytest.approx(5000)
    assert model.expect(Site(2, 10, 0.03)).rate == pytest.approx(300)
    assert model.expect(Site(4, proxies=9, workers=9)).rate == pytest.approx(10_000)


def test_costs_count_what_is_beside_franker() -> None:
    cpu = {"proxy": 100.0, "worker": 80.0, "redis": 60.0, "sink": 40.0, "load": 20.0}
    assert Costs.of(cpu) == COSTS
    assert Costs.of({"worker": 80.0}) == Costs(worker=80)


def _rates() -> dict[str, Result]:
    """What a machine that does as the model says would measure."""
    cpu = {"cpu.worker": 100.0, "cpu.redis": 50.0}
    flow = {**cpu, "cpu.proxy": 150.0, "relayed": 5000.0}
    drain = {**cpu, "relayed": 8000.0}
    found = {FLOW: flow, NEAR: drain, FAR: {**drain, "relayed": 10 / 0.032}}
    found["wire-100ms-50"] = {**drain, "relayed": 50 / 0.102}
    found["sessions-1"] = {**flow, "relayed": 300.0}
    return {
        one.name: Result(one.name, one.group, one.title, {FRANKER: [found[one.name]]})
        for one in plan.full()
        if one.name in found
    }


def test_the_model_is_set_by_three_points_and_compared_with_the_others() -> None:
    found = {one.name: one for one in points(plan.full(), _rates(), cores=2)}
    assert {name for name, one in found.items() if one.sets_model} == {FLOW, NEAR, FAR}
    assert all(one.error == pytest.approx(0) for one in found.values())
    assert found["wire-100ms-50"].limit == "connections"
    assert "sessions-1" not in found  # its client's waiting forms the limit


def test_there_is_no_model_without_the_points_that_set_it() -> None:
    rates = _rates()
    del rates[FAR]
    assert points(plan.full(), rates, cores=2) == []


@pytest.mark.parametrize("scenarios", [plan.full(), plan.quick()], ids=["full", "quick"])
def test_names_in_a_plan_are_unique_and_groups_known(scenarios: tuple[Scenario, ...]) -> None:
    assert set(Counter(one.name for one in scenarios).values()) == {1}
    assert {one.group for one in scenarios} == set(plan.GROUPS)
    assert {FLOW, NEAR, FAR} <= {one.name for one in scenarios}


def test_all_that_is_shown_exists() -> None:
    names = {one.name for one in plan.full()}
    for target in TARGETS:
        assert target.scenario in names
        assert not target.against or target.against in names
        assert target.key in FIGURES
    for group, key in PANELS:
        assert key in plan.GROUPS[group][1]
    assert all(key in FIGURES for _, keys in plan.GROUPS.values() for key in keys)


def test_a_slow_system_is_measured_less_often() -> None:
    outage = next(one for one in plan.full() if one.name == "outage")
    assert [outage.rounds(system, 5) for system in BOTH] == [3, 1]
    assert [outage.rounds(system, 2) for system in BOTH] == [2, 1]


def test_scenarios_are_chosen_by_name_pattern_or_group() -> None:
    names = {one.name for one in chosen(arguments(["idle", "size-*", "backlog"]))}
    backlogs = {"backlog-1000", "backlog-100000", "backlog-500000"}
    assert names == {"idle", "size-1kb", "size-5kb", "size-100kb", "size-5mb"} | backlogs
    assert chosen(arguments(["nonsense"])) == ()
    assert chosen(arguments([])) == plan.full()
    assert chosen(arguments(["--quick"])) == plan.quick()


def test_a_flow_of_ones_own_can_be_asked_for() -> None:
    words = ["--messages", "70", "--size", "99", "--fresh", "--delay", "0", "--delay", "30"]
    found = [one.what for one in chosen(arguments(words))]
    load = Load(70, size=99, fresh=True)
    assert found == [Flow(load), Flow(load, 30.0)]
    (one,) = chosen(arguments(["--backlog", "500", "--messages", "70"]))
    assert isinstance(one.what, Backlog)
    assert (one.what.queued, one.what.load) == (500, Load(70))


def test_mail_that_waits_is_not_relayed_meanwhile() -> None:
    waiting = [one.what for one in plan.full() if isinstance(one.what, Drain | Backlog)]
    assert waiting
    assert not any(what.setup.relaying for what in waiting)


def test_a_picture_shows_every_panel_there_are_figures_for() -> None:
    one = result(relayed=([3000, 2000], [500, 400]), kept=([3000, 2000], [500, 400]))
    drawn = panels([one], points(plan.full(), _rates(), cores=2))
    assert len(drawn) == 3
    picture = ET.fromstring(svg("<Franker & Postfix>", drawn))
    words = {element.text for element in picture.iter() if element.tag.endswith("text")}
    assert {"<Franker & Postfix>", "20 sessions", "2,500", "450"} <= words
    bars = [element for element in picture.iter() if element.get("fill") == "#d98032"]
    assert len(bars) == 1 + 2  # the legend's, and Postfix's in two panels


def test_what_failed_is_said_in_the_report() -> None:
    one = Result("idle", "idle", "idle", {FRANKER: []}, ["franker, round 1: it ended"])
    assert "- idle: franker, round 1: it ended" in report({}, [one], [], [])


def test_a_run_can_be_shown_again(tmp_path: Path) -> None:
    rates = _rates()
    about = {"started": "2026-11-20T10:00:00+00:00", "machine": "two cores"}
    found = points(plan.full(), rates, cores=2)
    text = write(tmp_path / "run.json", about, list(rates.values()), found)
    picture = (tmp_path / "run.svg").read_text()
    (tmp_path / "run.svg").unlink()
    assert written_again(tmp_path / "run.json") == text == (tmp_path / "run.md").read_text()
    assert (tmp_path / "run.svg").read_text() == picture
