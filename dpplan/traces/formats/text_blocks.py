"""Tokens and blocks out of text: by a tokenizer's file, or by an estimate that says so."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from dpplan.arrays import Ints
from dpplan.errors import BadInput, Fault
from dpplan.traces.requests import TokenSource

__all__ = ["BLOCK_TOKENS", "EstimatedTokens", "GivenTokenizer"]

BLOCK_TOKENS: Final = 64
CHARACTERS_PER_TOKEN: Final = 4


class EstimatedTokens:
    """Four characters are a token.

    Examples
    --------
    >>> tokens = EstimatedTokens(64)
    >>> tokens.count("abcde"), tokens.blocks("a" * 260)[1]
    (2, array([64,  1]))
    >>> one, two = tokens.blocks("a" * 600)[0], tokens.blocks("a" * 256 + "b" * 400)[0]
    >>> one == two
    array([ True, False, False])
    """

    source: TokenSource = "estimate"

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return -(-len(text) // CHARACTERS_PER_TOKEN)

    def blocks(self, text: str) -> tuple[Ints, Ints]:
        """Ids and tokens of its blocks, the last one partial."""
        step = self._block_tokens * CHARACTERS_PER_TOKEN
        pieces = (text[i : i + step].encode() for i in range(0, len(text), step))
        return _chained(pieces), _sizes(self.count(text), self._block_tokens)


class GivenTokenizer(EstimatedTokens):
    """Counts with a tokenizer.json; the tokens a chat template adds aren't counted.

    Raises
    ------
    BadInput
        If the file is no tokenizer, or the package that reads it isn't there.
    """

    source: TokenSource = "tokenizer"

    def __init__(self, path: str, block_tokens: int) -> None:
        try:
            tokenizers: Any = importlib.import_module("tokenizers")
        except ImportError:
            needed = "the package tokenizers is needed to read it"
            cure = "pip install 'dpplan[tokenizer]'"
            raise BadInput(Fault(path, needed, "none", cure)) from None
        super().__init__(block_tokens)
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(path)
        # The package raises plain Exception.
        except Exception as error:
            reason = str(error)[:100]
            raise BadInput(Fault(path, "a tokenizer.json is needed", reason)) from None

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._ids(text))

    def blocks(self, text: str) -> tuple[Ints, Ints]:
        """Ids and tokens of its blocks, the last one partial."""
        tokens = np.array(self._ids(text), np.uint32)
        step = self._block_tokens
        pieces = (tokens[i : i + step].tobytes() for i in range(0, len(tokens), step))
        return _chained(pieces), _sizes(len(tokens), step)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def _chained(pieces: Iterator[bytes]) -> Ints:
    """64 bits for each piece and all before it."""
    digest = b""
    digests = []
    for piece in pieces:
        digest = blake2b(piece, digest_size=8, key=digest).digest()
        digests.append(digest)
    return np.frombuffer(b"".join(digests), "<i8").astype(np.int64)


def _sizes(tokens: int, block_tokens: int) -> Ints:
    sizes = np.full(-(-tokens // block_tokens), block_tokens, np.int64)
    if len(sizes):
        sizes[-1] = tokens - (len(sizes) - 1) * block_tokens
    return sizes
