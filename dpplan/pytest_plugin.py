"""pytest plugin: hold predictions in the tests of another repository.

The fixture `dpplan_check` recomputes scenarios and fails the test that calls it where one left its
tolerance. Paths are those of `pytest.ini` or the command line, from pytest's root folder:

.. code-block:: ini

    [pytest]
    dpplan_scenarios = predictions.yaml
    dpplan_baseline = predictions.json

Importing this module loads nothing of dpplan: a test session that doesn't ask pays nothing.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from dpplan.validation.check import CheckResult

__all__ = ["DpplanCheck", "dpplan_check", "pytest_addoption"]


class DpplanCheck(Protocol):
    """What the fixture gives: a function that checks and fails the test on drift."""

    def __call__(
        self,
        scenarios: str | os.PathLike[str] | None = None,
        baseline: str | os.PathLike[str] | None = None,
    ) -> CheckResult:
        """Check `scenarios` against `baseline`; absent ones are those configured."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and ini values of the same names."""
    group = parser.getgroup("dpplan", "predictions of dpplan")
    for name, text in (
        ("scenarios", "YAML list of scenarios that `dpplan_check` recomputes"),
        ("baseline", "JSON of the predictions they must give (default: beside the scenarios)"),
    ):
        group.addoption(f"--dpplan-{name}", metavar="FILE", default=None, help=text)
        parser.addini(f"dpplan_{name}", text, default="")
    group.addoption(
        "--dpplan-update",
        action="store_true",
        default=False,
        help="Accept the predictions of now: write the baseline in place of comparing with it.",
    )


@pytest.fixture
def dpplan_check(pytestconfig: pytest.Config) -> DpplanCheck:
    """Check predictions: `dpplan_check()`, or `dpplan_check("my.yaml", "my.json")`."""

    def configured(name: str) -> str | None:
        given = pytestconfig.getoption(f"--dpplan-{name}") or pytestconfig.getini(f"dpplan_{name}")
        return str(given) if given else None

    def run(
        scenarios: str | os.PathLike[str] | None = None,
        baseline: str | os.PathLike[str] | None = None,
    ) -> CheckResult:
        from dpplan.errors import DpplanError
        from dpplan.report.documents.check import check_document
        from dpplan.report.renderers.terminal import Screen, render
        from dpplan.validation.check import check

        if scenarios is None:
            scenarios = configured("scenarios")
            baseline = configured("baseline") if baseline is None else baseline
        # Profiles and files are found as the command line finds them in the root folder.
        with contextlib.chdir(pytestconfig.rootpath):
            try:
                result = check(
                    scenarios, baseline, update=bool(pytestconfig.getoption("--dpplan-update"))
                )
            except DpplanError as error:
                pytest.fail(str(error), pytrace=False)
        if not result.passed:
            pytest.fail(render(check_document(result), Screen(blocks=False)), pytrace=False)
        return result

    return run
