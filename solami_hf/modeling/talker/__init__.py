"""The talker: text to level 0 of the speech codec's codes."""
