"""The packaged character; `README.md` beside this file is its card."""

from .packaged_character import base_model, character_folder

__all__ = ["base_model", "character_folder"]
