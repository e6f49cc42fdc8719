"""The progress bar of a training run, with the loss on it."""

from __future__ import annotations

from transformers import ProgressCallback, Trainer


class LossOnBar(ProgressCallback):
    """Trainer's bar with the loss on it, in place of a line of every logged value; `history.json` has them all."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Shows the loss of a row that has one."""
        if self.training_bar is not None and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.4g}")


def show_loss_on_bar(trainer: Trainer) -> None:
    """Gives a trainer that shows Trainer's own bar [`LossOnBar`] in its place."""
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(LossOnBar())


__all__ = ["LossOnBar", "show_loss_on_bar"]
