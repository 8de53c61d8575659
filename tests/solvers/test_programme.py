"""Law L written out: every law's rows and every problem, as .lp files that a reviewer reads.

With DPPLAN_UPDATE_GOLDEN=1 the files are written anew; what changed is a diff to read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dpplan.errors import Infeasible
from dpplan.solvers import lp
from dpplan.solvers.lp import Mix, Names, Programme, maximise_turns, minimise_cost

GOLDEN = Path(__file__).parent / "golden"
UPDATE = os.environ.get("DPPLAN_UPDATE_GOLDEN") == "1"
NAMES = Names(
    resources=("prefill.storage_nic", "decode.storage_nic", "prefill.gpu", "backend"),
    ways=("prefill_read", "decode_read"),
    classes=("agentic", "long context"),
    pools=("prefill", "decode"),
)


def toy() -> Mix:
    """Two classes, two ways; the decode side's read is limited, and shut for long contexts."""
    return Mix(
        load=np.array(
            [
                [[0.5, 0.0, 0.25, 0.0], [0.0, 0.5, 0.25, 0.0]],
                [[0.75, 0.0, 1.0, 0.0], [0.0, 0.75, 1.0, 0.0]],
            ]
        ),
        weights=np.array([0.75, 0.25]),
        at_most=np.array([[1.0, 0.2], [1.0, 0.0]]),
        unit=np.array([[1.0, 1.0], [1.0, 0.5]]),
        closed=np.array([[False, False], [False, True]]),
        names=NAMES,
    )


def alone(law: Callable[[Programme, Mix], None], pools: int = 0) -> Programme:
    """One law's rows on the toy's flows, nothing to minimise but one of them."""
    mix = toy()
    programme = Programme("law", mix.names.of(mix, pools))
    for k, w in np.ndindex(mix.closed.shape):
        programme.column(("flow", k, w), programme.names.classes[k], programme.names.ways[w])
    for p, label in enumerate(programme.names.pools):
        programme.column(("engines", p), label, category="Integer")
    programme.set_objective(programme.column(("turns_per_s",)))
    law(programme, mix)
    return programme


def engines(programme: Programme) -> list[object]:
    prefill, decode = programme.columns["engines", 0], programme.columns["engines", 1]
    return [prefill, decode, prefill, 1.0]


PROGRAMMES: dict[str, Callable[[], Programme]] = {
    "meet_mix": lambda: alone(lambda p, mix: lp.meet_mix(p, mix, p.columns["turns_per_s",])),
    "limit_resources": lambda: alone(lp.limit_resources),
    "limit_resources_of_engines": lambda: alone(
        lambda p, mix: lp.limit_resources(p, mix, engines(p)), pools=2
    ),
    "limit_shares": lambda: alone(
        lambda p, mix: lp.limit_shares(p, mix, p.columns["turns_per_s",])
    ),
    "meet_roles": lambda: alone(
        lambda p, _: lp.meet_roles(p, {"prefill": [0], "any": [0, 1]}), pools=2
    ),
    "throughput": lambda: lp.throughput_problem(toy()),
    "tie_break": lambda: lp.tie_break_problem(toy(), 0.8, free=[1]),
    "fleet": lambda: lp.fleet_problem(
        toy(), [0, 1, 0, None], np.array([2.0, 1.5]), {"prefill": [0], "decode": [1]}, whole=True
    ),
    "fleet_relaxed": lambda: lp.fleet_problem(
        toy(), [0, 1, 0, None], np.array([2.0, 1.5]), {}, whole=False
    ),
}


def written(programme: Programme, path: Path) -> str:
    programme.problem.writeLP(str(path))
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PROGRAMMES)
def test_every_law_is_written_as_in_its_golden_file(name: str, tmp_path: Path) -> None:
    """L: a change of a formulation is a change of a file."""
    text = written(PROGRAMMES[name](), tmp_path / "toy.lp")
    golden = GOLDEN / f"{name}.lp"
    if UPDATE:
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_every_law_and_every_problem_has_a_golden_file() -> None:
    """L: none is forgotten, and no file outlives its law."""
    laws = {name for name in vars(lp) if name.startswith(("meet_", "limit_"))}
    problems = {name.removesuffix("_problem") for name in vars(lp) if name.endswith("_problem")}
    assert laws | problems <= set(PROGRAMMES)
    assert {path.stem for path in GOLDEN.glob("*.lp")} == set(PROGRAMMES)


@pytest.mark.parametrize("name", ["throughput", "tie_break", "fleet", "fleet_relaxed"])
def test_another_reader_takes_the_files_and_their_names(name: str) -> None:
    """L: HiGHS reads the file itself, keeps every name, and comes to the same optimum."""
    import highspy

    programme = PROGRAMMES[name]()
    assert programme.solve() == "Optimal"
    reader = highspy.Highs()  # type: ignore[no-untyped-call]
    reader.setOptionValue("output_flag", False)
    assert reader.readModel(str(GOLDEN / f"{name}.lp")) == highspy.HighsStatus.kOk
    reader.run()
    expected = programme.problem.objective.value()
    assert reader.getObjectiveValue() == pytest.approx(expected, rel=1e-8)
    model = reader.getLp()
    assert sorted(model.col_names_) == sorted(c.name for c in programme.columns.values())
    assert sorted(model.row_names_) == sorted(row.name for row in programme.rows.values())
    assert "limit(prefill.storage_nic)" in model.row_names_
    assert "flow(long_context,decode_read)" in model.col_names_


def test_keys_lead_to_rows_whatever_their_names() -> None:
    """L: rows are looked up by law and number; names are for readers."""
    programme = lp.throughput_problem(toy())
    assert programme.rows["at_most", 0, 1].name == "at_most(agentic,decode_read)"
    assert programme.rows["meet_mix", 1].name == "meet_mix(long_context)"
    assert ("at_most", 0, 0) not in programme.rows  # no limit
    assert ("at_most", 1, 1) not in programme.rows  # shut
    assert ("limit", 3) not in programme.rows  # nobody uses it


def test_names_change_no_number() -> None:
    """L: of equal optima the same one is taken, however classes and ways are called."""
    rng = np.random.default_rng(14)
    for _ in range(50):
        use = rng.integers(1, 3, (3, 4, 5)).astype(float)
        capacity, weights = 2.0 ** rng.integers(0, 3, 5), rng.dirichlet(np.ones(3))
        at_most = np.array([0.6, 0.5, 0.4, 1.0])
        plain = maximise_turns(use, capacity, weights, at_most=at_most)
        for names in (
            Names(tuple("zyxwv"), tuple("dcba"), tuple("rqp")),
            Names(ways=("a-b", "a_b", "a b", "a/b"), classes=("1e9", "", "e5")),
        ):
            named = maximise_turns(use, capacity, weights, at_most=at_most, names=names)
            assert named.flow_turns_per_s.tolist() == plain.flow_turns_per_s.tolist()
            assert named.elasticity.tolist() == plain.elasticity.tolist()


def test_names_that_look_alike_stay_apart() -> None:
    """L: what an .lp file cannot hold becomes _, and a clash gets numbers."""
    mix = toy()
    names = Names(ways=("a-b", "a b")).of(mix)
    assert names.ways == ["a_b.0", "a_b.1"]
    assert names.classes == ["0", "1"]
    with pytest.raises(ValueError, match="1 names of ways for 2"):
        Names(ways=("one",)).of(mix)


def test_a_demand_beyond_what_does_not_grow_is_infeasible_by_name() -> None:
    """L: the message calls the resource by the caller's name for it, not by its label."""
    names = Names(resources=("pool/1 gpu", "backend store"))
    with pytest.raises(Infeasible, match=r"grow with nodes: backend store$"):
        minimise_cost([[[0.1, 0.2]]], [1, 1], [0, None], [1.0], 15.0, names=names)
