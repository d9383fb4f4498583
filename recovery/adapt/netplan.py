"""Pure: reading netplan's YAML as far as network adaptation needs it.

A YAML library is not worth its weight on the medium for this; netplan files are maps of maps with short lists.
"""

from __future__ import annotations

from collections.abc import Iterator

from recovery.adapt.netconfig import NetConfig


def read_netplan(text: str, config: NetConfig) -> None:
    """``/etc/netplan/*.yaml``. An id with a ``match`` and no ``set-name`` is no interface name and is left out."""
    facts: dict[tuple[str, str], dict[str, list[str]]] = {}
    for path, value in _walk(text):
        if len(path) >= 3 and path[0] == "network":
            entry = facts.setdefault((path[1], path[2]), {})
            entry.setdefault(".".join(path[3:]), []).append(value)
    for (kind, id_), entry in facts.items():
        if kind not in ("ethernets", "bridges", "bonds", "vlans"):
            continue
        if kind == "ethernets":
            matched = any(key.startswith("match") for key in entry)
            name = _one(entry, "set-name") or (_one(entry, "match.name") if matched else id_)
            config.mention(name)
            config.mac(name, _one(entry, "match.macaddress"))
        else:
            name = id_
            config.stack(name, *entry.get("interfaces", ()), *entry.get("link", ()))
        config.address(name, *entry.get("addresses", ()))
        if any(_one(entry, key).lower() in ("true", "yes", "on") for key in ("dhcp4", "dhcp6")):
            config.address(name, "DHCP")


def _one(entry: dict[str, list[str]], key: str) -> str:
    return entry.get(key, [""])[0]


def _walk(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path of keys, scalar): a list gives its path once per item, an empty map its path with an empty scalar."""
    stack: list[tuple[int, str]] = []
    for raw in text.splitlines():
        line = _without_comment(raw)
        if not line.strip() or line.strip() == "---":
            continue
        indent = len(line) - len(line.lstrip())
        content = line.strip()
        if content.startswith("- "):
            # An item may stand at the same indentation as its key.
            while stack and stack[-1][0] > indent:
                stack.pop()
            yield tuple(key for _, key in stack), _scalar(content[2:].strip().removesuffix(":"))
            continue
        while stack and stack[-1][0] >= indent:
            stack.pop()
        key, value = _split(content)
        stack.append((indent, key))
        path = tuple(key for _, key in stack)
        yield from _values(path, value)


def _values(path: tuple[str, ...], value: str) -> Iterator[tuple[tuple[str, ...], str]]:
    if value.startswith("[") and value.endswith("]"):
        for item in filter(None, (part.strip() for part in value[1:-1].split(","))):
            yield path, _scalar(item)
    elif value.startswith("{") and value.endswith("}"):
        yield path, ""
        for pair in filter(None, (part.strip() for part in value[1:-1].split(","))):
            key, inner = _split(pair)
            yield (*path, key), _scalar(inner)
    else:
        yield path, _scalar(value)


def _split(content: str) -> tuple[str, str]:
    """``"a:b": c`` -> (``a:b``, ``c``): the first colon that is followed by a blank or the end."""
    quote = content[0] if content[:1] in ("'", '"') else ""
    start = content.find(quote, 1) + 1 if quote else 0
    at = content.find(": ", start)
    if at < 0:
        at = len(content) - 1 if content.endswith(":") else len(content)
    return _scalar(content[:at]), content[at + 1 :].strip()


def _scalar(text: str) -> str:
    return text.strip().strip("\"'")


def _without_comment(line: str) -> str:
    if line.lstrip().startswith("#"):
        return ""
    at = line.find(" #")
    return line if at < 0 else line[:at]
