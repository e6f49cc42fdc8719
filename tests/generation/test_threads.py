"""An answer's threads: one for small models, all for others, and afterwards what there was."""

from types import SimpleNamespace

import pytest
import torch

from solami_hf.generation.loading import SMALL, fitting_threads


@pytest.mark.parametrize(("weights", "expected"), [(SMALL // 2, 1), (SMALL // 2 + 1, 3)])
def test_small_models_have_one_thread(weights, expected):
    model = SimpleNamespace(parameters=lambda: [torch.empty(weights, device="meta")])
    processor = SimpleNamespace(motion_codec=model, speech_codec=model, acoustic_model=None)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with fitting_threads(SimpleNamespace(model=SimpleNamespace(parameters=list), processor=processor)):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
