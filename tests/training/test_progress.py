"""The bar of a run shows the loss, and the terminal gets no line of everything that is logged."""

import torch
from transformers import PrinterCallback, ProgressCallback, TrainerControl, TrainerState, TrainingArguments

from solami_hf.training.trainer import LossOnBar, SafeTrainer


def trainer(tmp_path, **arguments):
    return SafeTrainer(
        torch.nn.Linear(1, 1), TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", **arguments)
    )


def callbacks(trainer, kind):
    return [type(callback) for callback in trainer.callback_handler.callbacks if isinstance(callback, kind)]


def test_trainers_own_bar_is_replaced_where_there_is_one(tmp_path):
    shown, silent = trainer(tmp_path), trainer(tmp_path, disable_tqdm=True)
    assert callbacks(shown, ProgressCallback) == [LossOnBar]
    assert callbacks(silent, ProgressCallback) == [] and callbacks(silent, PrinterCallback) == [PrinterCallback]


def test_the_loss_is_on_the_bar_and_nothing_is_written(capsys):
    bar, state = LossOnBar(), TrainerState(max_steps=2)
    bar.on_train_begin(None, state, TrainerControl())
    bar.on_log(None, state, None, logs={"loss": "2.34567", "grad_norm": 1.0, "loss_speech": 3.0})
    assert bar.training_bar.postfix == "loss=2.346"
    bar.on_log(None, state, None, logs={"eval_loss": 1.0})
    bar.on_train_end(None, state, TrainerControl())
    out, err = capsys.readouterr()
    assert out == "" and "grad_norm" not in err
