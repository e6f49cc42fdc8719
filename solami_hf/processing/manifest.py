"""Manifests under their first name; they are read in `processing/datasets/manifests.py`."""

from .datasets.manifests import read_manifest

__all__ = ["read_manifest"]
