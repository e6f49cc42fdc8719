"""Loss and token accuracy split by what the tokens stand for, from the forward pass that training has anyway."""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from ...modeling.solami.backbones import allow_cache
from ...modeling.solami.configuration_solami import require_layout
from ...processing.rendering import IGNORE
from ..trainer import SafeTrainer
from .adapters import set_rate_beside_lora
from .chunked_loss import ChunkedLossOutput


class LossByModality:
    """Sums of losses and hits of each kind of token, kept on the device until somebody asks. Kinds are `text`, the
    `modalities` of the layout, and `end`: all `markers` (`<eos>`, `<eot>`, `<sosp>`, ...); `vocab_size` is rows of
    the model's head."""

    def __init__(self, modalities: dict[str, dict], markers: dict[str, int], vocab_size: int):
        require_layout(SimpleNamespace(modalities=modalities, markers=markers))
        self.kinds = ["text", *modalities, "end"]
        self.kind_of_id = torch.zeros(vocab_size, dtype=torch.long)
        for number, span in enumerate(modalities.values(), start=1):
            self.kind_of_id[span["first_id"] : span["first_id"] + span["size"]] = number
        self.kind_of_id[list(markers.values())] = len(self.kinds) - 1
        self.clear()

    def clear(self) -> None:
        """Forgets what was added."""
        self.sums = torch.zeros(3, len(self.kinds))

    @torch.no_grad()
    def add(self, outputs: ChunkedLossOutput) -> None:
        """Adds the tokens of a batch, without waiting for the device."""
        targets = outputs.targets
        self.kind_of_id, self.sums = self.kind_of_id.to(targets.device), self.sums.to(targets.device)
        ones = torch.ones_like(outputs.log_probs)
        columns = torch.stack([-outputs.log_probs.float(), outputs.is_top1.float(), ones])
        # A batch is summed by itself: single ones would be lost in a float32 sum over a long run
        self.sums += torch.zeros_like(self.sums).index_add_(1, self.kind_of_id[targets], columns)

    def means(self, reduce: Callable[[torch.Tensor], torch.Tensor] = lambda sums: sums) -> dict[str, float]:
        """The means since the last call, which are forgotten then; `reduce` sums a tensor over all ranks, each of
        which has to call this. Returns `{"loss": all tokens, "accuracy": all tokens, "loss_<kind>": nats,
        "accuracy_<kind>": share of tokens that were the most likely one}`, kinds without tokens left out; empty
        without any."""
        losses, hits, counts = (row.tolist() for row in reduce(self.sums).cpu().double())
        self.clear()
        total = sum(counts)
        if not total:
            return {}
        means = {"loss": sum(losses) / total, "accuracy": sum(hits) / total}
        for kind, loss, hit, count in zip(self.kinds, losses, hits, counts, strict=True):
            if count:
                means |= {f"loss_{kind}": loss / count, f"accuracy_{kind}": hit / count}
        return {name: round(value, 5) for name, value in means.items()}


class SplitLossTrainer(SafeTrainer):
    """A Trainer that logs loss and token accuracy of each kind of token (`layout` has `modalities` and `markers`)
    beside the loss, over all ranks. Evaluation gets them too (`eval_chat_loss_speech`), and for its loss the mean over
    all its tokens, not of batches. A model that keeps its own loss (`add_chunked_loss`) is trained without them.
    `embedding_learning_rate` is that of what is trained beside LoRA, if not the arguments'."""

    def __init__(self, *args, layout, embedding_learning_rate: float | None = None, **kwargs):
        require_layout(layout)
        super().__init__(*args, **kwargs)
        allow_cache(self.model)  # Trainer has put its own use_cache into the config that checkpoints get
        self.embedding_learning_rate = embedding_learning_rate
        vocab_size = self.model.config.get_text_config().vocab_size
        self.training_split, self.evaluation_split = (
            LossByModality(layout.modalities, layout.markers, vocab_size) for _ in range(2)
        )

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Trainer's optimizer, with another learning rate for what is trained beside LoRA where there is one."""
        made = self.optimizer is None
        super().create_optimizer(model)
        if made and self.embedding_learning_rate is not None:
            set_rate_beside_lora(self.optimizer, self.model if model is None else model, self.embedding_learning_rate)
        return self.optimizer

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Trainer's loss; the tokens behind it are added up."""
        if not model.training:
            self._ignore_repeated_rows(inputs["labels"])
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if "targets" in outputs:
            (self.training_split if model.training else self.evaluation_split).add(outputs)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Adds the split to a row that has the loss."""
        if "loss" in logs:
            logs |= {name: value for name, value in self._means(self.training_split).items() if name != "loss"}
        super().log(logs, *args, **kwargs)

    def evaluation_loop(
        self, dataloader: DataLoader, *args, metric_key_prefix: str = "eval", **kwargs
    ) -> EvalLoopOutput:
        """Trainer's evaluation of one data set, with the split among its metrics."""
        self.evaluation_split.clear()
        self._rows, self._rows_done = len(dataloader.dataset), 0
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        means = self._means(self.evaluation_split)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in means.items()})
        return output

    def _ignore_repeated_rows(self, labels: torch.Tensor) -> None:
        """Ranks get equally many rows, and begin the data set again where it does not divide; those do not count."""
        first = self._rows_done + self.args.process_index * len(labels)
        labels[max(0, self._rows - first) :] = IGNORE
        self._rows_done += self.args.world_size * len(labels)

    def _means(self, split: LossByModality) -> dict[str, float]:
        # A rank without tokens so far has its sums on the CPU, where not every backend can reduce
        split.sums = split.sums.to(self.args.device)
        return split.means(lambda sums: self.accelerator.reduce(sums, reduction="sum"))
