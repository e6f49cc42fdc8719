"""The Trainer that every stage is trained with: checkpoints are whole or not there and hold no pickles, a full disk is
told in words, and a run that was stopped goes on, on one process to the same weights and log, bit for bit.

`SafeTrainer` is the base. `ResumableTrainer`, for codecs and the acoustic model, draws windows by their number
(`WindowSampler`), logs before each checkpoint and keeps averaged weights in it; `save_run` writes its result.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, ProgressCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME

from ..command_line import parse_arguments
from ..modeling.solami.backbones import cpu_has_fast_bf16
from ..processing.files.atomic_write import atomic_model, atomic_write, follow_umask
from ..processing.files.output_folder import writing_to
from ..processing.files.text_files import write_json
from .checkpoints import CheckpointInWork, checkpoint_or_nothing, last_checkpoint, written_or_nothing
from .trackers import TrackedMedia

logger = logging.getLogger(__name__)

AVERAGES_FILE = "averaged.safetensors"


def run_training(train: Callable, arguments: list[type], argv: list[str] | None, prog: str) -> None:
    """A training command: `train`, which takes one object of each of `arguments` (the last `TrainingArguments`), with
    what a command line says, alone in its output folder; tells what it returns."""
    parsed = parse_arguments(arguments, argv, prog)
    folder = parsed[-1].output_dir
    with writing_to(folder):
        metrics = train(*parsed)
    logger.info("Wrote %s: %s", folder, metrics)


class LossOnBar(ProgressCallback):
    """Trainer's bar with the loss on it, in place of a line of every logged value; `history.json` has them all."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Shows the loss of a row that has one."""
        if self.training_bar is not None and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.4g}")


class SafeTrainer(Trainer):
    """A Trainer whose checkpoints are whole or removed, follow the umask, and have the arguments as JSON alone."""

    def __init__(self, *args, **kwargs):
        self.checkpoint = CheckpointInWork()
        super().__init__(*args, **kwargs)
        self.add_callback(self.checkpoint)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(LossOnBar())

    def train(self, *args, **kwargs):
        """As Trainer's; raises OSError with the way out when a checkpoint cannot be written, and removes it."""
        with checkpoint_or_nothing(self.checkpoint):
            return super().train(*args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As Trainer's, with the arguments as JSON alone; the first part of a checkpoint is written here."""
        folder = Path(output_dir or self.args.output_dir)
        if folder.name.startswith(PREFIX_CHECKPOINT_DIR):
            self.checkpoint.folder = folder
        if self.is_fsdp_enabled:  # Trainer would write tied weights twice, and nothing of sharded states
            model, weights = self.accelerator.unwrap_model(self.model), self.accelerator.get_state_dict(self.model)
            tied = getattr(model, "all_tied_weights_keys", {})
            weights = {name: value for name, value in weights.items() if name not in tied}
            model.save_pretrained(folder, state_dict=weights, is_main_process=self.args.should_save)
        else:
            super().save_model(output_dir, True)
        if self.args.should_save:
            # Nobody should have to load a pickle
            (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
            write_json(folder / "training_args.json", self.args.to_dict(), default=str)
            for path in folder.glob("*.safetensors"):
                follow_umask(path)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)


class WindowSampler(Sampler[int]):
    """The numbers of an epoch's windows, epoch * size to (epoch + 1) * size, in an order of that epoch alone."""

    def __init__(self, size: int, seed: int):
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        return iter((order + self.epoch * self.size).tolist())


class LogBeforeCheckpoint(TrainerCallback):
    """Logs before each checkpoint: sums that wait for the log are not part of it, and no bad loss is saved."""

    def on_step_end(self, args, state, control, **kwargs):
        """Asks for a log where a checkpoint is due."""
        control.should_log |= control.should_save

    on_epoch_end = on_step_end


class ExactResume(LogBeforeCheckpoint):
    """Keeps in checkpoints what a resumed run needs to go on exactly, and writes the run's page beside them."""

    def __init__(self, trainer: "ResumableTrainer"):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Trainer does not reach the sampler of an epoch that is resumed on several ranks."""
        if isinstance(self.trainer.sampler, WindowSampler):
            self.trainer.sampler.set_epoch(int(state.epoch or 0))

    def on_save(self, args, state, control, **kwargs):
        """Writes the run's page as far as it has come."""
        if state.is_world_process_zero:
            with self.trainer.kept_weights():
                self.trainer.write_page(TrackedMedia(self.trainer))


class AveragedWeights(TrainerCallback):
    """Running averages of the weights: they move less than the weights, and are usually the better model. `decay`:
    share of the averages that a step keeps, in [0, 1). The first steps count more, or the start would linger."""

    def __init__(self, decay: float):
        self.decay, self.steps, self.averages = decay, 0, {}

    @torch.no_grad()
    def on_step_end(self, args, state, control, model=None, **kwargs):
        """Moves the averages by one step."""
        weights = {name: value.detach() for name, value in model.state_dict().items()}
        if not self.averages:
            self.averages = {name: value.clone() for name, value in weights.items()}
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in weights.items():
            if value.is_floating_point():
                self.averages[name].lerp_(value, 1 - decay)
            else:
                self.averages[name].copy_(value)
        self.steps += 1

    def save(self, folder: str | Path) -> None:
        """Writes the averages into a checkpoint."""
        with atomic_write(Path(folder) / AVERAGES_FILE) as temporary:
            save_file(self.averages | {"steps": torch.tensor(self.steps)}, temporary)

    def load(self, folder: str | Path, device: torch.device) -> None:
        """Reads them again; raises ValueError where the checkpoint has none."""
        path = Path(folder) / AVERAGES_FILE
        if not path.is_file():
            raise ValueError(f"{folder} was trained without averaged weights; go on with `averaging_decay` 0")
        self.averages = {name: value.to(device) for name, value in load_file(path).items()}  # "cpu:0" is refused
        self.steps = int(self.averages.pop("steps"))

    @contextmanager
    def applied(self, model: PreTrainedModel) -> Iterator[None]:
        """Within the block the model has the averages for weights; nothing changes before the first step."""
        own = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.averages or own)
        try:
            yield
        finally:
            model.load_state_dict(own)


class ResumableTrainer(SafeTrainer):
    """A Trainer whose resumed runs end where uninterrupted ones do. `train_dataset[number]` has to depend on the
    number alone, which goes on counting from epoch to epoch. What a subclass appends to `parts` is logged as means
    over all ranks since the last log. Its `measure` and `write_page` are called while the model has the weights that
    are to be kept. `averages` are [`AveragedWeights`] with `averaging_decay`, 0 for none."""

    def __init__(self, *args, averaging_decay: float = 0.0, **kwargs):
        self.parts: dict[str, list[torch.Tensor]] = defaultdict(list)
        super().__init__(*args, **kwargs)
        vars(self.model.config).pop("use_cache", None)  # Trainer's own; no codec has one
        self.sampler = WindowSampler(len(self.train_dataset), self.args.seed)
        self.averages = AveragedWeights(averaging_decay) if averaging_decay else None
        self.add_callback(ExactResume(self))
        if self.averages:
            self.add_callback(self.averages)

    def get_train_dataloader(self) -> DataLoader:
        """Batches of windows in the order of their sampler, each rank's share."""
        names = ("drop_last", "num_workers", "pin_memory", "persistent_workers", "prefetch_factor")
        settings = {name: getattr(self.args, f"dataloader_{name}") for name in names}
        settings |= {"sampler": self.sampler, "collate_fn": self.data_collator}
        return self.accelerator.prepare(DataLoader(self.train_dataset, self.args.train_batch_size, **settings))

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """Adds the means of the parts since the last log, over all ranks."""
        if "loss" in logs and self.parts:
            means = torch.stack([torch.stack(values).mean() for values in self.parts.values()])
            means = self.accelerator.reduce(means, reduction="mean").tolist()
            logs |= {name: round(mean, 5) for name, mean in zip(self.parts, means, strict=True)}
            self.parts.clear()
        super().log(logs, *args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Averages go into a checkpoint with the weights, before the state that makes it a whole one."""
        super().save_model(output_dir, _internal_call)
        if _internal_call and self.averages and self.args.should_save:
            self.averages.save(output_dir)

    def measure(self) -> dict[str, float]:
        """Figures of what is held out, by name; empty where nothing is."""
        return {}

    def write_page(self, media: TrackedMedia | None = None) -> None:
        """Writes the run's page as far as it has come; what can be seen or heard there goes to `media` too."""

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Logs what `measure` says of the weights that are kept, tells the callbacks, and returns it."""
        with self.kept_weights():
            metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.measure().items()}
        if metrics:
            self.log(dict(metrics))
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @contextmanager
    def kept_weights(self) -> Iterator[None]:
        """Within the block the model has the weights that are to be kept: the averages, where there are any."""
        if self.averages is None:
            yield
        else:
            with self.averages.applied(self.model):
                yield

    def load_beside_weights(self, checkpoint: str) -> None:
        """Reads what is kept in a checkpoint beside Trainer's own; ValueError where averaged weights are missing."""
        if self.averages:
            self.averages.load(checkpoint, self.args.device)

    def train_or_resume(self) -> None:
        """Trains to the end, from the last whole checkpoint of the output folder if there is one. Raises
        ValueError: averaged weights are asked for, and the checkpoint has none."""
        checkpoint = self.args.resume_from_checkpoint or last_checkpoint(self.args.output_dir)
        if checkpoint:
            self.load_beside_weights(checkpoint)
        if checkpoint and (state := finished_state(checkpoint, self.args)):
            logger.info("all %d steps were done already: nothing is trained", state.global_step)
            # Trainer would take one step too many
            self.model.load_state_dict(load_file(Path(checkpoint) / SAFE_WEIGHTS_NAME))
            self.state = state
        else:
            self.train(resume_from_checkpoint=checkpoint)

    def finish(self, arguments, folder: str | Path, half: bool = False, **facts) -> dict[str, float]:
        """Evaluates after the last step, and writes the model in the weights that are kept (in fp16 with `half`), the
        history with `arguments` (a dataclass) and `facts`, and the page; gives the evaluation, which the log may hold
        already."""
        rows = (row for row in reversed(self.state.log_history) if row["step"] == self.state.global_step)
        found = ({name: value for name, value in row.items() if name.startswith("eval_")} for row in rows)
        metrics = next(filter(None, found), None) or self.evaluate()
        metrics = dict(sorted(metrics.items()))  # as in a log that comes from a checkpoint
        if self.is_world_process_zero():
            history = {"arguments": asdict(arguments), **facts, "log": self.history(), "evaluation": metrics}
            with self.kept_weights():
                save_run(self.model, history, folder, half)
                self.write_page()
        self.accelerator.wait_for_everyone()
        self.end()
        return metrics

    def history(self) -> list[dict[str, float]]:
        """See `log_of_run`."""
        return log_of_run(self.state)


def log_of_run(state: TrainerState) -> list[dict[str, float]]:
    """Trainer's log, without its summary: it counts seconds and losses of this call only, not of the run. The names in
    each row are sorted, as in a log that comes from a checkpoint."""
    return [dict(sorted(row.items())) for row in state.log_history if "train_runtime" not in row]


def require_one_process(args: TrainingArguments, what: str) -> None:
    """ValueError under torchrun, for what DistributedDataParallel cannot do: it knows whole passes of a model only."""
    if args.world_size > 1:
        raise ValueError(f"{what} by one process, not by {args.world_size}: leave out torchrun")


def finished_state(checkpoint: str, args: TrainingArguments) -> TrainerState | None:
    """The state of a checkpoint after which there is nothing left to train."""
    state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
    done = state.global_step >= args.max_steps if args.max_steps > 0 else state.epoch >= args.num_train_epochs
    return state if done else None


def save_run(model: PreTrainedModel, history: dict, folder: str | Path, half: bool = False) -> None:
    """Writes model and history beside their place, then moves each file there at once, the configuration last. With
    `half` the weights are written in fp16; the configuration says what the model computes in all the same, so that
    `from_pretrained` computes as in training."""
    # The configuration takes its dtype from the model.
    weights = {name: value.half() for name, value in model.state_dict().items()} if half else None
    with written_or_nothing(folder), atomic_model(folder) as staging:
        model.save_pretrained(staging, state_dict=weights)
        write_json(staging / "history.json", history)


def avoid_slow_bf16(args: TrainingArguments) -> None:
    """Turns `bf16` off, and says so, in a run on a CPU that has no fast bfloat16. A run under DeepSpeed keeps what its
    configuration says."""
    if args.bf16 and args.device.type == "cpu" and args.deepspeed is None and not cpu_has_fast_bf16():
        args.bf16, args.mixed_precision = False, "no"
        logger.warning("this CPU computes bfloat16 in software, many times slower: training in float32 instead")
