"""`dpplan optimize` and `dpplan explain`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpplan.cli import output
from dpplan.cli.arguments import check_choice
from dpplan.errors import BadInput, Infeasible

if TYPE_CHECKING:
    from dpplan.planner.optimize import Case
    from dpplan.profiles.workload import TurnClass
    from dpplan.report.document import Document
    from dpplan.results.optimize import Plan

__all__ = ["FORMATS", "Question", "run_explain", "run_optimize", "write_document"]

FORMATS = ("table", "json", "csv", "markdown")


@dataclass(frozen=True)
class Question:
    """What the options ask for."""

    hw: str | None
    workload: str | TurnClass
    model: str | None
    prefill_hw: str | None
    decode_hw: str | None
    nodes: int | None
    prefill_nodes: int | None
    decode_nodes: int | None
    settings: tuple[str, ...]
    unlimited: tuple[str, ...]
    traffic: str


def run_optimize(question: Question, format: str) -> None:
    """Plan and print."""
    _, plan = _answer(question, format, "dpplan.optimize/1")
    if format == "json":
        _warn(plan)
        output.json_document(plan.to_dict())
    elif format == "csv":
        from dpplan.report.renderers.csv import plan_csv

        _warn(plan)
        output.text(plan_csv(plan))
    else:
        from dpplan.report.documents.optimize import plan_document

        write_document(plan_document(plan), format)


def run_explain(question: Question, format: str) -> None:
    """Plan and print every term."""
    from dpplan.planner.explain import explain

    case, plan = _answer(question, format, "dpplan.explain/1")
    terms = explain(case, plan)
    if format == "json":
        _warn(plan)
        inputs = plan.to_dict()["inputs"]
        rows = [vars(term) for term in terms]
        output.json_document({"schema": "dpplan.explain/1", "inputs": inputs, "terms": rows})
    elif format == "csv":
        from dpplan.report.renderers.csv import terms_csv

        _warn(plan)
        output.text(terms_csv(terms))
    else:
        from dpplan.report.documents.explain import explain_document

        write_document(explain_document(plan, terms), format)


def _answer(question: Question, format: str, schema: str) -> tuple[Case, Plan]:
    """Case and plan; an infeasible one is an answer too, so JSON says it on stdout."""
    faults = check_choice("--format", format, FORMATS)
    with output.quick_start():
        from dpplan.planner.optimize import plan_case, prepare

    try:
        case = prepare(
            question.hw,
            question.workload,
            model=question.model,
            prefill_hardware=question.prefill_hw,
            decode_hardware=question.decode_hw,
            nodes=question.nodes,
            prefill_nodes=question.prefill_nodes,
            decode_nodes=question.decode_nodes,
            traffic=question.traffic,  # type: ignore[arg-type]  # checked there, with all other faults
            unlimited=question.unlimited,
            settings=question.settings,
        )
        if faults:
            raise BadInput(faults)
        with output.quick_start():  # the solver is loaded here
            return case, plan_case(case)
    except BadInput as error:
        raise BadInput(dict.fromkeys([*faults, *error.faults])) from None
    except Infeasible as error:
        if faults:
            raise BadInput(faults) from None
        if format == "json":
            reason = {"reason": error.reason, "limits": list(error.limits)}
            output.json_document({"schema": schema, "infeasible": reason})
        raise


def _warn(plan: Plan) -> None:
    for warning in plan.warnings:
        output.message(f"warning: {warning}")


def write_document(document: Document, format: str) -> None:
    """Print a report as a table or as Markdown."""
    if format == "markdown":
        from dpplan.report.renderers.markdown import render_markdown

        output.text(render_markdown(document))
    else:
        output.document(document)
