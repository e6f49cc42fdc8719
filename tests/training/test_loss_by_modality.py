"""The split of the loss on literal numbers, and in the log of a Trainer."""

from types import SimpleNamespace

import pytest
import torch

from solami_hf.training.language_model.chunked_loss import ChunkedLossOutput, add_chunked_loss
from solami_hf.training.language_model.language_model_training import LanguageModelTrainingArguments
from solami_hf.training.language_model.loss_by_modality import LossByModality, SplitLossTrainer
from solami_hf.training.language_model.packed_mixture import PackedRowsCollator

MODALITIES = {"speech": {"first_id": 6, "size": 3}, "body": {"first_id": 9, "size": 2}}
MARKERS = {"eos": 4, "sosp": 5}


def outputs(targets, losses, hits):
    return ChunkedLossOutput(None, -torch.tensor(losses), torch.tensor(hits), torch.tensor(targets))


def test_means_of_kinds():
    split = LossByModality(MODALITIES, MARKERS, 12)
    split.add(outputs([3, 6, 8], [1.0, 2.0, 4.0], [True, True, False]))
    split.add(outputs([8, 4, 11], [6.0, 0.5, 3.0], [False, True, False]))
    assert split.means() == {
        "loss": 2.75,
        "accuracy": 0.5,
        "loss_text": 2.0,  # 3, and 11 behind the layout
        "accuracy_text": 0.5,
        "loss_speech": 4.0,
        "accuracy_speech": 0.33333,
        "loss_end": 0.5,
        "accuracy_end": 1.0,
    }
    assert split.means() == {}


def test_ranks_are_summed_before_they_are_divided():
    split = LossByModality(MODALITIES, MARKERS, 12)
    split.add(outputs([6], [2.0], [True]))
    other = torch.tensor([[0.0, 9.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0]])
    assert split.means(lambda sums: sums + other)["loss_speech"] == 2.75


def test_single_tokens_are_not_lost_in_a_long_sum():
    split = LossByModality(MODALITIES, MARKERS, 12)
    split.sums[2] += 2.0**24
    for _ in range(3):
        split.add(outputs([6] * 4, [1.0] * 4, [True] * 4))
    assert split.sums[2, 1] == 2.0**24 + 12


@pytest.fixture
def trainer(tiny_model, tiny_processor, tmp_path):
    """A trainer of two rows a step, over rows of text, speech codes and an end."""
    first = tiny_processor.modalities["speech"]["first_id"]
    end = tiny_processor.markers["eos"]
    rows = [{"input_ids": [7, 8, first + i, first, end]} for i in range(8)]
    rows = [{**row, "labels": row["input_ids"] if i % 2 else [-100] * 4 + [end]} for i, row in enumerate(rows)]
    arguments = LanguageModelTrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        logging_steps=2,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=3,
        learning_rate=0.0,
        use_cpu=True,
        report_to="none",
        remove_unused_columns=False,
        save_strategy="no",
    )
    add_chunked_loss(tiny_model)
    collator = PackedRowsCollator(tiny_processor.tokenizer.pad_token_id)
    return SplitLossTrainer(
        model=tiny_model,
        args=arguments,
        data_collator=collator,
        train_dataset=rows,
        eval_dataset={"chat": rows[:4]},
        layout=tiny_processor,
    )


def test_log_of_a_trainer(trainer):
    trainer.train()
    first, second = (row for row in trainer.state.log_history if "loss" in row)
    kinds = {"text", "speech", "end"}
    for row in (first, second):
        assert {name[5:] for name in row if name.startswith("loss_")} == kinds
        assert {name[9:] for name in row if name.startswith("accuracy_")} == kinds
    # Each pair of rows has 1 + 2 + 2 tokens, as weights of the kinds, and the learning rate is zero
    assert first["loss"] == pytest.approx((first["loss_text"] + 2 * first["loss_speech"] + 2 * first["loss_end"]) / 5)


def test_evaluation_loss_is_the_mean_of_all_tokens(trainer):
    metrics = trainer.evaluate()
    parts = [metrics[f"eval_chat_loss_{kind}"] for kind in ("text", "speech", "end")]
    counts = [2, 4, 4]  # in batches of 3 rows and of 1
    expected = sum(count * part for count, part in zip(counts, parts, strict=True)) / 10
    assert metrics["eval_chat_loss"] == pytest.approx(expected, abs=1e-4)
    assert 0 <= metrics["eval_chat_accuracy"] <= 1


@pytest.mark.parametrize(("rank", "counted"), [(0, [[0, 1], [4]]), (1, [[2, 3], []])])
def test_rows_that_fill_up_the_last_batches_do_not_count(rank, counted):
    """Five rows on two ranks, two rows a batch: the data set begins anew after the fifth."""
    positions = [[0, 1], [4, 0]] if rank == 0 else [[2, 3], [1, 2]]
    trainer = SimpleNamespace(args=SimpleNamespace(process_index=rank, world_size=2), _rows=5, _rows_done=0)
    for rows, wanted in zip(positions, counted, strict=True):
        labels = torch.tensor(rows)[:, None].expand(2, 3).clone()
        SplitLossTrainer._ignore_repeated_rows(trainer, labels)
        assert labels[labels[:, 0] != -100, 0].tolist() == wanted
