"""The lips: what a mouth does while speech is heard."""
