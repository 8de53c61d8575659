"""Traces that hold text: LMCache's agent traces and OpenAI's chat messages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np

from dpplan.traces.formats.agents import Agents
from dpplan.traces.formats.common import FormatReader, Head, Reading, check_tokens, decoded
from dpplan.traces.formats.stamps import since_1970_s
from dpplan.traces.formats.text_blocks import BLOCK_TOKENS, EstimatedTokens, GivenTokenizer
from dpplan.traces.reading.faults import BadRecord
from dpplan.traces.reading.lines import Chunk
from dpplan.traces.requests import GAP_HUMAN, GAP_TOOL, GAP_UNKNOWN, Requests, Row, batches_of

__all__ = ["ChatReader"]

TIMES: Final = ("timestamp", "created", "created_at", "time")
SESSIONS: Final = ("session_id", "conversation_id", "chat_id")
# Characters held to be sorted by time.
MAX_HELD_CHARACTERS: Final = 32 << 20

ESTIMATE_NOTE: Final = "token counts are an ESTIMATE: 4 characters are taken for a token"
USAGE_NOTE: Final = "token counts are the records' own; blocks share them out over the text"
BLOCKS_NOTE: Final = (
    "blocks of {} tokens are cut from the text: equal ids, equal text from the start"
)
SORTED_NOTE: Final = "lines of a file that stood out of order of time and were sorted: {}"
AGENTS_NOTE: Final = (
    "turns of a session go to the agent whose last prompt shares the longest start with theirs"
)


@dataclass(frozen=True)
class _Turn:
    time_s: float
    prompt: str
    answer: str
    session: str
    usage: tuple[int, int] | None
    gap_kind: int


class ChatReader(FormatReader):
    """See `FormatReader`: tokens and blocks come from the text."""

    name = "chat"

    def __init__(self, head: Head, reading: Reading) -> None:
        super().__init__(head, reading)
        options = reading.options
        self.block_tokens = options.block_tokens or BLOCK_TOKENS
        self._tokens = (
            EstimatedTokens(self.block_tokens)
            if options.tokenizer is None
            else GivenTokenizer(options.tokenizer, self.block_tokens)
        )
        record = head.records[0] if head.records else {}
        keys = head.keys
        self._time_key = next((key for key in TIMES if key in keys), None)
        self._session_key = next((key for key in SESSIONS if key in keys), None)
        self.has_sessions = self._session_key is not None
        self.in_order = self._time_key is not None
        self.token_source = "given" if _usage(record) else self._tokens.source
        self._notes.add(BLOCKS_NOTE.format(self.block_tokens))
        if not self.in_order:
            self._notes.add("no times: requests keep the order of the file")
        if self.has_sessions:
            self._notes.add(AGENTS_NOTE)
        self._agents = Agents()
        self._decoder = msgspec.json.Decoder(dict[str, Any])
        self._origin_s: float | None = None

    @staticmethod
    def recognises(head: Head) -> bool:
        """Whether a text is of this format."""
        return "messages" in head.keys or {"input", "output", "timestamp"} <= head.keys

    def read(self, chunks: Iterator[Chunk], member: str) -> Iterator[Requests]:
        """Requests of a text in order of time, as far as it can be held."""
        held: list[_Turn] = []
        characters = 0
        lines = chain.from_iterable(chunk.lines() for chunk in chunks)
        for turn in self.each(lines, member, self._turn):
            held.append(turn)
            characters += len(turn.prompt) + len(turn.answer)
            if characters > MAX_HELD_CHARACTERS:
                yield from self._give(held)
                held, characters = [], 0
        yield from self._give(held)

    def _turn(self, line: bytes) -> _Turn:
        record = decoded(self._decoder, line)
        time_s = math.nan
        if self._time_key is not None:
            time_s = since_1970_s(record.get(self._time_key))
        session = ""
        if self._session_key is not None:
            name = record.get(self._session_key)
            if not isinstance(name, str | int):
                raise BadRecord(f"{self._session_key}: a name is needed", repr(name)[:40])
            session = str(name)
        gap_kind = GAP_UNKNOWN
        if "messages" in record:
            prompt, answer, gap_kind = _conversation(record)
        else:
            prompt, answer = _text(record, "input"), _text(record, "output")
        return _Turn(time_s, prompt, answer, session, _usage(record), gap_kind)

    def _give(self, turns: list[_Turn]) -> Iterator[Requests]:
        if self.in_order and turns:
            times_s = np.array([turn.time_s for turn in turns])
            behind = int((times_s < np.maximum.accumulate(times_s)).sum())
            if behind:
                self._notes.add(SORTED_NOTE, behind)
            turns.sort(key=lambda turn: turn.time_s)
        return batches_of(map(self._row, turns))

    def _row(self, turn: _Turn) -> Row:
        ids, sizes = self._tokens.blocks(turn.prompt)
        if turn.usage is not None:
            input_tokens, output_tokens = turn.usage
            total = int(sizes.sum())
            # Each block's share of the text is its share of the count.
            ends = sizes.cumsum() * input_tokens // max(total, 1)
            sizes = ends - [0, *ends[:-1].tolist()] if len(ends) else ends
            self._notes.add(USAGE_NOTE)
        else:
            input_tokens, output_tokens = int(sizes.sum()), self._tokens.count(turn.answer)
            self.token_source = self._tokens.source
            if self.token_source == "estimate":
                self._notes.add(ESTIMATE_NOTE)
        if self._origin_s is None:
            self._origin_s = turn.time_s
        session, agent = -1, 0
        if self.has_sessions:
            session, agent = self._agents.of(turn.session, turn.prompt)
        return Row(
            turn.time_s - self._origin_s,
            input_tokens,
            output_tokens,
            session=session,
            agent=agent,
            gap_kind=turn.gap_kind,
            ids=ids,
            tokens=sizes,
        )


def _text(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise BadRecord(f"{key}: text is needed", type(value).__name__)
    return value


def _usage(record: dict[str, Any]) -> tuple[int, int] | None:
    """Tokens of prompt and answer, where the record tells them."""
    usage = record.get("usage")
    if not isinstance(usage, dict) or "prompt_tokens" not in usage:
        return None
    counts = []
    for key in ("prompt_tokens", "completion_tokens"):
        count = usage.get(key, 0)
        if not isinstance(count, int) or isinstance(count, bool):
            raise BadRecord(f"usage.{key}: a whole number is needed", repr(count)[:40])
        check_tokens(f"usage.{key}", count)
        counts.append(count)
    return counts[0], counts[1]


def _conversation(record: dict[str, Any]) -> tuple[str, str, int]:
    """Prompt, answer and what came before the prompt: all messages but a last one of the model."""
    messages = record["messages"]
    if not isinstance(messages, list) or not messages:
        raise BadRecord("messages: a list of messages is needed", repr(messages)[:40])
    lines = []
    role = ""
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRecord(f"messages[{index}]: a role and content are needed")
        role = message["role"]
        lines.append(f"{role}: {_content(message, index)}\n")
    answer = ""
    if role == "assistant":
        answer = _content(messages[-1], len(messages) - 1)
        lines.pop()
        role = messages[-2]["role"] if len(messages) > 1 else ""
    else:
        answer = _answer(record)
    kinds = {"tool": GAP_TOOL, "function": GAP_TOOL, "user": GAP_HUMAN}
    return "".join(lines), answer, kinds.get(role, GAP_UNKNOWN)


def _content(message: dict[str, Any], index: int) -> str:
    """The text of a message: a string, parts of which some are text, calls of tools."""
    content = message.get("content")
    if content is None:
        text = ""
    elif isinstance(content, str):
        text = content
    elif isinstance(content, list):
        parts = [part.get("text", "") for part in content if isinstance(part, dict)]
        text = "".join(part for part in parts if isinstance(part, str))
    else:
        raise BadRecord(f"messages[{index}].content: text is needed", type(content).__name__)
    if calls := message.get("tool_calls"):
        text += msgspec.json.encode(calls).decode()
    return text


def _answer(record: dict[str, Any]) -> str:
    """The answer where it stands beside the messages."""
    for key in ("output", "response"):
        if isinstance(record.get(key), str):
            return str(record[key])
    choices = record.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        message = choices[0].get("message")
        if isinstance(message, dict):
            return _content(message, 0)
    return ""
