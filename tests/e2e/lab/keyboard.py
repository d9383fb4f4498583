"""Text and key names as the key presses of a US keyboard, in QEMU's key codes."""

from __future__ import annotations

_NAMED = {
    " ": "spc", "\n": "ret", "\t": "tab", "-": "minus", "=": "equal", "[": "bracket_left", "]": "bracket_right",
    ";": "semicolon", "'": "apostrophe", "`": "grave_accent", "\\": "backslash", ",": "comma", ".": "dot",
    "/": "slash",
}  # fmt: skip
_SHIFTED = dict(zip('!@#$%^&*()_+{}:"~|<>?', "1234567890-=[];'`\\,./", strict=True))

#: What people call a key -> QEMU's code. F1..F12, single characters and QEMU's own names need no entry.
_KEYS = {"enter": "ret", "escape": "esc", "space": "spc", "pageup": "pgup", "pagedown": "pgdn"}


def presses_of_text(text: str) -> list[list[str]]:
    """Each press is a list of keys held together. Raises ValueError for a character that a US keyboard lacks."""
    return [_press(character) for character in text]


def _press(character: str) -> list[str]:
    if character in _SHIFTED:
        return ["shift", *_press(_SHIFTED[character])]
    if character in _NAMED:
        return [_NAMED[character]]
    if character.isascii() and character.isalnum():
        return ["shift", character.lower()] if character.isupper() else [character]
    raise ValueError(f"There is no key for {character!r}.")


def press_of_name(name: str) -> list[str]:
    """``"ctrl+alt+f2"`` -> ``["ctrl", "alt", "f2"]``; ``"enter"`` -> ``["ret"]``."""
    return [_KEYS.get(part, _NAMED.get(part, part)) for part in name.lower().split("+")]
