"""Whole weights beside DeepSpeed's ZeRO-3, which divides among the ranks every model that is loaded while it is on."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed
from transformers.integrations import deepspeed


@contextmanager
def whole_weights(training_args) -> Iterator[None]:
    """Within the block `from_pretrained` gives each rank a whole model, also on one rank alone; afterwards the run's
    configuration is on again, if it was."""
    known = deepspeed.deepspeed_config() is not None
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        plugin = getattr(training_args, "deepspeed_plugin", None)  # of `accelerate launch`
        configuration = getattr(training_args, "hf_deepspeed_config", None) or getattr(plugin, "dschf", None)
        if known and configuration is not None:
            deepspeed.set_hf_deepspeed_config(configuration)


def check_gathering() -> None:
    """ValueError for a ZeRO-3 configuration under which no whole model can be saved; before the run, not after it."""
    if not deepspeed.is_deepspeed_zero3_enabled():
        return
    key = "stage3_gather_16bit_weights_on_model_save"
    if not deepspeed.deepspeed_config()["zero_optimization"].get(key):
        raise ValueError(
            f"the DeepSpeed configuration has no {key}: true in zero_optimization; set it, or no model can be saved"
        )


def prepare_zero3(processor, training_args) -> None:
    """Prepares loading a model under ZeRO-3; does nothing otherwise. DeepSpeed joins the ranks, which Trainer does too
    late where they are CPUs, and the codecs of the processor are loaded whole, where ZeRO-3 would divide them on first
    use."""
    if not deepspeed.is_deepspeed_zero3_enabled():
        return
    from deepspeed import comm

    if not comm.is_initialized():
        comm.init_distributed(dist_backend=distributed.get_backend(), auto_mpi_discovery=False)
    with whole_weights(training_args):
        for name in ("motion_codec", "speech_codec", "acoustic_model"):
            try:
                getattr(processor, name)
            except ValueError:  # it has none, which is for whoever needs it to say
                continue
