"""Sends held-out sounds and movements to the trackers of `--report_to` that take media: TensorBoard, Trackio and
Weights & Biases. Losses reach every tracker by Trainer's own log, and the run's page needs none of them."""

import importlib
import io
import os
import re
import tempfile
from collections.abc import Callable

import numpy as np
import torch
from transformers import Trainer

from ..modeling.motion_vq.kinematics import SMPLX_PARENTS

_FRAME_RATE, _SIZE, _MARGIN = 10, 320, 16  # frames/s and pixels of a drawn movement
_COLOURS = ("#6b7280", "#2563eb", "#d97706")


class TrackedMedia:
    """The trackers of a run that take media. `trainer`: on the rank that logs, between the begin and the end of its
    training."""

    def __init__(self, trainer: Trainer):
        self.step, named = trainer.state.global_step, trainer.args.report_to or []
        writers = (getattr(callback, "tb_writer", None) for callback in trainer.callback_handler.callbacks)
        self.board = next(filter(None, writers), None)
        self.modules = [importlib.import_module(name) for name in ("trackio", "wandb") if name in named]

    def __bool__(self) -> bool:
        return self.board is not None or bool(self.modules)

    def sounds(self, clips: list[tuple[str, dict[str, np.ndarray]]], sampling_rate: int) -> None:
        """Clips, of each a title and its versions, name -> float samples (samples,) in [-1, 1]; rate in Hz."""
        for number, (title, versions) in enumerate(clips, 1):
            for name, samples in versions.items():
                tag = f"held_out_audio/{number}_{_plain(name)}"
                samples = np.clip(np.asarray(samples, np.float32), -1, 1)
                if self.board is not None:
                    self.board.add_audio(tag, torch.from_numpy(samples)[None], self.step, sampling_rate)
                self._log(tag, lambda m, s=samples, t=title: m.Audio(s, caption=t, sample_rate=sampling_rate))

    def motions(self, movements: list[tuple[str, list[np.ndarray]]], fps: float) -> None:
        """Movements, of each a title and its performers' joints (T, 55, 3) in metres, y up, at `fps` frames/s."""
        for number, (title, performers) in enumerate(movements, 1):
            tag, picture = f"held_out_motion/{number}", draw_movement(performers, fps)
            if self.board is not None:
                self._show_on_board(tag, picture)
            with tempfile.NamedTemporaryFile(suffix=".gif", delete=False) as file:
                file.write(picture)
            try:
                self._log(tag, lambda m, f=file.name, t=title: m.Video(f, caption=t, format="gif"))
            finally:
                os.unlink(file.name)

    def _log(self, tag: str, make: Callable) -> None:
        for module in self.modules:
            if module.__name__ == "wandb":  # its callback tells the step so too
                module.log({tag: make(module), "train/global_step": self.step})
            else:
                module.log({tag: make(module)}, step=self.step)

    def _show_on_board(self, tag: str, picture: bytes) -> None:
        """An animated picture among the images; torch's own `add_video` would need moviepy for the same."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        image = Summary.Image(height=_SIZE, width=_SIZE, colorspace=3, encoded_image_string=picture)
        self.board.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), self.step)


def draw_movement(performers: list[np.ndarray], fps: float) -> bytes:
    """An animated GIF, 10 frames/s, of stick figures seen from the front: of each performer the joints (T, 55, 3) in
    metres, y up, in SMPL-X order, at `fps` frames a second."""
    from PIL import Image, ImageDraw  # comes with every tracker

    step = max(1, round(fps / _FRAME_RATE))
    flat = [np.asarray(joints, np.float64)[::step, :, :2] for joints in performers]
    every = np.concatenate([points.reshape(-1, 2) for points in flat])
    low, size = every.min(0), np.ptp(every, axis=0).max(initial=1e-3, axis=0)
    scale = _SIZE - 2 * _MARGIN
    images = []
    for frame in range(max(map(len, flat))):
        image = Image.new("RGB", (_SIZE, _SIZE), "white")
        pen = ImageDraw.Draw(image)
        for colour, points in zip(_COLOURS, flat, strict=False):
            x, y = (_MARGIN + scale * (points[min(frame, len(points) - 1)] - low) / size).T
            for joint, parent in enumerate(SMPLX_PARENTS):
                if parent >= 0:
                    pen.line([(x[joint], _SIZE - y[joint]), (x[parent], _SIZE - y[parent])], fill=colour, width=3)
        images.append(image)
    file = io.BytesIO()
    duration = round(1000 * step / fps)
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
    return file.getvalue()


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_").lower()
