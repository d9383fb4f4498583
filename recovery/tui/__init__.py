"""The recovery console: a keyboard-only client of ``EngineApi`` that looks right on a real text console."""
