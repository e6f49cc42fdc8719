"""Loads the original project's checkpoints into our models; nothing is unpickled."""

from .motion_vq.convert_motion_vq import convert_motion_vq
from .soundstorm.convert_soundstorm import convert_soundstorm
from .speech_codec.convert_speech_codec import convert_speech_codec

__all__ = ["convert_motion_vq", "convert_soundstorm", "convert_speech_codec"]
