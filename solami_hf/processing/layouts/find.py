"""Layouts under their first name; they are found in `processing/datasets/layouts/find_layout.py`."""

from ..datasets.layouts.find_layout import Layout, find_layout

__all__ = ["Layout", "find_layout"]
