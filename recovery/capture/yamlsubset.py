"""Just enough YAML for netplan: block and flow maps and lists of plain or quoted scalars. Pure.

A dependency for one configuration format is not worth it; what is outside this subset (anchors, multi-line scalars,
tags) comes out as text or is left out, and never raises.
"""

from __future__ import annotations

import re

Node = object


def parse_yaml(text: str) -> Node:
    """Dicts, lists and strings. An empty document gives an empty dict."""
    lines: list[tuple[int, str]] = []
    for raw in text.splitlines():
        line = _without_comment(raw).rstrip()
        if line.strip() and line.strip() != "---":
            lines.append((len(line) - len(line.lstrip(" ")), line.strip()))
    node, _ = _block(lines, 0, lines[0][0] if lines else 0)
    return node


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s)#.*$", "", line)


def _block(lines: list[tuple[int, str]], at: int, indent: int) -> tuple[Node, int]:
    if at < len(lines) and (lines[at][1] == "-" or lines[at][1].startswith("- ")):
        return _list(lines, at, indent)
    found: dict[str, Node] = {}
    while at < len(lines) and lines[at][0] == indent:
        match = re.match(r"""("[^"]*"|'[^']*'|[^\s:][^:]*?|[0-9a-fA-F:]+)\s*:(?:\s+(.*))?$""", lines[at][1])
        at += 1
        if not match:
            continue
        key, value = _scalar(match[1]), match[2]
        if value:
            found[key] = _flow(value)
        elif at < len(lines) and (lines[at][0] > indent or (lines[at][0] == indent and lines[at][1].startswith("- "))):
            found[key], at = _block(lines, at, lines[at][0])
        else:
            found[key] = ""
    # Whatever is indented strangely is passed over, so that the caller always gets on.
    while at < len(lines) and lines[at][0] > indent:
        at += 1
    return found, at


def _list(lines: list[tuple[int, str]], at: int, indent: int) -> tuple[Node, int]:
    items: list[Node] = []
    while at < len(lines) and lines[at][0] == indent and (lines[at][1] == "-" or lines[at][1].startswith("- ")):
        rest = lines[at][1][1:].strip()
        if re.match(r"""("[^"]*"|'[^']*'|[^\s"'\[{][^:]*):(\s|$)""", rest):
            # A map that starts on the dash's line: its other keys stand below its first.
            lines[at] = (indent + 2, rest)
            node, at = _block(lines, at, indent + 2)
            items.append(node)
        else:
            items.append(_flow(rest))
            at += 1
            while at < len(lines) and lines[at][0] > indent:
                at += 1
    return items, at


def _flow(text: str) -> Node:
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        return [_flow(part) for part in _split(text[1:-1])]
    if text.startswith("{") and text.endswith("}"):
        pairs = (part.partition(":") for part in _split(text[1:-1]))
        return {_scalar(key): _flow(value) for key, _, value in pairs}
    return _scalar(text)


def _split(text: str) -> list[str]:
    parts, depth, quote, current = [], 0, "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        if character == "," and not depth and not quote:
            parts.append(current)
            current = ""
        else:
            current += character
    return [part.strip() for part in [*parts, current] if part.strip()]


def _scalar(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'" else text
