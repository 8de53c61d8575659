"""What is told while a trace is read: notes, and bad lines, up to where there are too many."""

from __future__ import annotations

from typing import Final, NoReturn

from dpplan.errors import BadInput, Fault

__all__ = ["BadRecord", "Faults", "Notes", "printable"]

MAX_BAD_FRACTION: Final = 0.01
KEPT: Final = 20
# Lines after which a file that is mostly bad is given up early.
EARLY_LINES: Final = 1000
EARLY_BAD_FRACTION: Final = 0.5
STRICT_CURE: Final = "mend the line, or read without --strict"


class BadRecord(ValueError):
    """What is wrong with one record: `needed` and `got`, the place is known further up."""

    def __init__(self, needed: str, got: str = "") -> None:
        super().__init__(needed)
        self.needed = needed
        self.got = got


def printable(text: str) -> str:
    """A text as it is, or as Python writes it where it would garble a terminal."""
    return text if text.isprintable() else repr(text)[1:-1]


class Faults:
    """Counts the lines of one file after another, and refuses a file with too many bad ones.

    Parameters
    ----------
    strict : bool
        Whether the first bad line ends the reading.

    Examples
    --------
    >>> faults = Faults()
    >>> faults.begin("t.jsonl")
    >>> faults.good(300)
    >>> faults.bad(7, "JSON is needed", "{")
    >>> faults.end()
    >>> faults.lines, faults.bad_lines, faults.kept
    (301, 1, ('t.jsonl:7: JSON is needed, got {',))
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.lines = 0
        """Records of this file so far, good or bad."""
        self.bad_lines = 0
        self._name = ""
        self._first: list[Fault] = []
        self._kept: list[Fault] = []

    @property
    def kept(self) -> tuple[str, ...]:
        """The first bad lines of all files."""
        return tuple(map(str, self._kept))

    def begin(self, name: str) -> None:
        """Start to count another file."""
        self._name, self.lines, self.bad_lines, self._first = name, 0, 0, []

    def good(self, count: int) -> None:
        """Count good lines."""
        self.lines += count

    def bad(self, line: int, needed: str, got: str = "", *, member: str = "") -> None:
        """Count a bad line, of the file or of a file in it.

        Raises
        ------
        BadInput
            If the reading is strict, or if most of the lines so far are bad.
        """
        name = f"{self._name}/{member}" if member else self._name
        fault = Fault(f"{name}:{line}", needed, printable(got))
        if self.strict:
            raise BadInput(Fault(fault.where, needed, fault.got, STRICT_CURE))
        self.lines += 1
        self.bad_lines += 1
        if len(self._first) < KEPT:
            self._first.append(fault)
        if len(self._kept) < KEPT:
            self._kept.append(fault)
        if self.lines >= EARLY_LINES and self.bad_lines > EARLY_BAD_FRACTION * self.lines:
            self._refuse()

    def end(self) -> None:
        """End a file.

        Raises
        ------
        BadInput
            If more than 1 % of its lines are bad; none good is more than 1 %.
        """
        if self.bad_lines > MAX_BAD_FRACTION * self.lines:
            self._refuse()

    def _refuse(self) -> NoReturn:
        needed = f"at most {MAX_BAD_FRACTION:.0%} bad lines are tolerated"
        got = f"{self.bad_lines} of {self.lines}"
        cure = "mend them, or name the format with --format-of; the first ones follow"
        raise BadInput([Fault(self._name, needed, got, cure), *self._first[:5]])


class Notes:
    """What a reader of the numbers must know, once each, in order; counts are filled in."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}

    def add(self, text: str, count: int = 1) -> None:
        """Note something; `{}` in the text stands for how often."""
        self._texts[text] = self._texts.get(text, 0) + count

    @property
    def texts(self) -> tuple[str, ...]:
        """All notes."""
        return tuple(text.replace("{}", str(count)) for text, count in self._texts.items())
