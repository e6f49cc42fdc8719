"""What is done beside ZeRO-3, with a configuration alone; real ranks are in `test_language_model_ranks`."""

from types import SimpleNamespace

import pytest
from transformers.integrations.deepspeed import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

from solami_hf.training.language_model.zero3 import check_gathering, prepare_zero3, whole_weights


@pytest.fixture
def configuration():
    """A ZeRO-3 configuration under which no whole model is saved; it is on as long as it lives."""
    return HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})


def test_whole_weights_within_the_block_only(configuration):
    assert is_deepspeed_zero3_enabled()
    with pytest.raises(KeyError), whole_weights(SimpleNamespace(hf_deepspeed_config=configuration)):
        assert not is_deepspeed_zero3_enabled()
        raise KeyError
    assert is_deepspeed_zero3_enabled()
    launched = SimpleNamespace(deepspeed_plugin=SimpleNamespace(dschf=configuration))
    with whole_weights(launched):
        assert not is_deepspeed_zero3_enabled()
    assert is_deepspeed_zero3_enabled()


def test_a_run_that_could_not_be_saved_is_refused(configuration):
    with pytest.raises(ValueError, match="no stage3_gather_16bit_weights_on_model_save: true"):
        check_gathering()
    configuration.config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = True
    check_gathering()


def test_nothing_happens_without_it():
    check_gathering()
    prepare_zero3(None, None)
    with whole_weights(SimpleNamespace(hf_deepspeed_config=None)):
        pass
    assert not is_deepspeed_zero3_enabled()
