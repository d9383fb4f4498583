"""LVM2's metadata language: ``key = value`` and ``section { ... }``; the grammar of lvm2's config.c. Pure."""

from __future__ import annotations

import re
from typing import Any

_TOKEN = re.compile(r'\s+|#[^\n]*|("(?:[^"\\]|\\.)*")|([{}\[\]=,])|([^\s{}\[\]=,#"]+)')

Section = dict[str, Any]


class LvmSyntaxError(ValueError):
    """The text is not LVM metadata."""


def parse_config(text: str) -> Section:
    """A nested dict; values are str, int, float or lists of them. Raises LvmSyntaxError."""
    tokens = _tokens(text)
    section, rest = _section(tokens, 0, top=True)
    if rest != len(tokens):
        raise LvmSyntaxError(f"unexpected '{tokens[rest]}'")
    return section


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise LvmSyntaxError(f"unexpected character at {position}")
        position = match.end()
        word = match.group(1) or match.group(2) or match.group(3)
        if word:
            found.append(word)
    return found


def _section(tokens: list[str], at: int, *, top: bool) -> tuple[Section, int]:
    section: Section = {}
    while at < len(tokens) and tokens[at] != "}":
        name = _unquote(tokens[at])
        sign = tokens[at + 1] if at + 1 < len(tokens) else ""
        if sign == "{":
            section[name], at = _section(tokens, at + 2, top=False)
            if at >= len(tokens):
                raise LvmSyntaxError(f"section '{name}' has no end")
            at += 1
        elif sign == "=":
            section[name], at = _value(tokens, at + 2)
        else:
            raise LvmSyntaxError(f"'{name}' has no value")
    if top and at < len(tokens):
        raise LvmSyntaxError("'}' without a section")
    return section, at


def _value(tokens: list[str], at: int) -> tuple[Any, int]:
    if at >= len(tokens):
        raise LvmSyntaxError("a value is missing")
    if tokens[at] != "[":
        return _scalar(tokens[at]), at + 1
    values: list[Any] = []
    at += 1
    while at < len(tokens) and tokens[at] != "]":
        if tokens[at] != ",":
            values.append(_scalar(tokens[at]))
        at += 1
    if at >= len(tokens):
        raise LvmSyntaxError("a list has no end")
    return values, at + 1


def _scalar(word: str) -> str | int | float:
    if word.startswith('"'):
        return _unquote(word)
    if word in "{}[]=,":
        raise LvmSyntaxError(f"'{word}' is not a value")
    try:
        return int(word)
    except ValueError:
        try:
            return float(word)
        except ValueError:
            return word


def _unquote(token: str) -> str:
    return re.sub(r"\\(.)", r"\1", token[1:-1]) if token.startswith('"') else token
