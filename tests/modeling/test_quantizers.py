from pathlib import Path

import numpy as np
import pytest
import torch

from solami_hf.modeling.motion_vq.quantizers import EmaQuantizer, FiniteScalarQuantizer, perplexity, usage

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "vqvae" / "ema.npz", allow_pickle=False)


def golden_vectors(key: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[key]).transpose(1, 2).reshape(-1, 32)


@pytest.mark.parametrize("part", ["body", "hand"])
def test_three_training_steps_equal_the_original(part):
    quantizer = EmaQuantizer(64, 32, random_restart=False).train()
    quantizer.codebook.copy_(torch.from_numpy(GOLDEN[f"{part}/codebook_loaded"]))
    for step in range(3):
        _, commitment, codes = quantizer(golden_vectors(f"{part}/step{step}/enc"))
        for name in ("codebook", "code_count"):
            expected = torch.from_numpy(GOLDEN[f"{part}/step{step}/{name}_after"])
            torch.testing.assert_close(getattr(quantizer, name), expected, atol=1e-6, rtol=1e-6)
        assert commitment.item() == pytest.approx(float(GOLDEN[f"{part}/step{step}/commit"]), abs=1e-6)
        assert perplexity(codes, 64).item() == pytest.approx(float(GOLDEN[f"{part}/step{step}/perplexity"]), rel=1e-5)


def test_fewer_vectors_than_codes_are_tiled_as_in_the_original():
    quantizer = EmaQuantizer(64, 32, random_restart=False).train()
    torch.manual_seed(777)  # the noise that the original drew
    for step in range(2):
        quantizer(golden_vectors(f"small/step{step}/enc"))
        expected = torch.from_numpy(GOLDEN[f"small/step{step}/codebook_after"])
        torch.testing.assert_close(quantizer.codebook, expected, atol=1e-6, rtol=1e-6)


def test_a_loaded_codebook_is_kept():
    first = EmaQuantizer(4, 2).train()
    first(torch.randn(16, 2))
    second = EmaQuantizer(4, 2)
    second.load_state_dict(first.state_dict())
    vectors = torch.randn(16, 2) + 100  # far away: an initialisation from these would be seen
    _, _, codes = second.train()(vectors)
    assert torch.equal(codes, first.encode(vectors))


def test_evaluation_changes_nothing():
    quantizer = EmaQuantizer(4, 2).eval()
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    quantizer(torch.randn(16, 2))
    assert all(torch.equal(before[key], value) for key, value in quantizer.state_dict().items())


def test_count_of_exactly_one_is_alive():
    quantizer = EmaQuantizer(2, 1, decay=0.99, random_restart=False).train()
    quantizer.initialise(torch.tensor([[0.0], [10.0]]))
    quantizer(torch.tensor([[1.0], [11.0]]))  # 0.99 * 1 + 0.01 * 1
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[0.01], [10.01]]))


def test_dead_code_moves_to_the_batch():
    quantizer = EmaQuantizer(2, 1, decay=0.5, dead_code_threshold=0.9).train()
    quantizer.initialise(torch.tensor([[0.0], [1000.0]]))
    quantizer(torch.tensor([[1.0], [2.0], [3.0]]))
    assert quantizer.codebook[1].item() in (1.0, 2.0, 3.0)


def test_gradient_passes_straight_through():
    quantizer = EmaQuantizer(4, 2).eval()
    vectors = torch.randn(5, 2, requires_grad=True)
    quantized, _, codes = quantizer(vectors)
    torch.testing.assert_close(quantized, quantizer.codebook[codes])
    quantized.sum().backward()
    assert torch.equal(vectors.grad, torch.ones(5, 2))


def test_bypass_neither_quantizes_nor_learns():
    quantizer = EmaQuantizer(4, 2).train()
    quantizer.bypass = True
    vectors = torch.randn(5, 2)
    quantized, commitment, _ = quantizer(vectors)
    assert torch.equal(quantized, vectors) and commitment == 0 and not quantizer.initialised


def test_kmeans_finds_the_clusters():
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    quantizer = EmaQuantizer(3, 2)
    quantizer.initialise(centres.repeat_interleave(50, 0) + 0.01 * torch.randn(150, 2), kmeans_steps=10)
    distance = torch.cdist(centres, quantizer.codebook).amin(1)
    assert (distance < 0.1).all() and quantizer.initialised


def test_perplexity_and_usage():
    assert perplexity(torch.tensor([0, 1, 2, 3]), 8).item() == pytest.approx(4, rel=1e-4)
    assert perplexity(torch.tensor([5, 5, 5]), 8).item() == pytest.approx(1, rel=1e-4)
    assert usage(torch.tensor([0, 1, 1]), 8).item() == 0.25


def test_no_vectors():
    with pytest.raises(ValueError, match="`vectors` is empty"):
        EmaQuantizer(4, 2).initialise(torch.zeros(0, 2))


def train_rank(rank, vectors, folder):
    torch.distributed.init_process_group("gloo")
    torch.manual_seed(rank)
    quantizer = EmaQuantizer(8, 2, dead_code_threshold=0.5).train()
    quantizer.initialise(vectors[rank, :8])
    start = quantizer.codebook.clone()
    for _ in range(3):
        quantizer(vectors[rank])
    torch.save({"start": start} | quantizer.state_dict(), folder / f"{rank}.pt")


def test_two_ranks_keep_one_codebook_that_counts_the_vectors_of_both(two_ranks, tmp_path):
    vectors = torch.randn(2, 40, 2)
    two_ranks(train_rank, vectors, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for name in first:
        assert torch.equal(first[name], second[name]), name
    alone = EmaQuantizer(8, 2, dead_code_threshold=0.5).train()
    alone.initialise(first["start"])
    for _ in range(3):
        alone(vectors.flatten(0, 1))
    torch.testing.assert_close(first["code_count"], alone.code_count)
    torch.testing.assert_close(first["code_sum"], alone.code_sum)


@pytest.mark.parametrize("levels", [(8, 8, 8), (8, 6, 5), (2, 3)])
def test_every_fsq_code_has_its_vector_and_can_be_reached(levels):
    quantizer = FiniteScalarQuantizer(levels, 16)
    codes = torch.arange(quantizer.code_num)
    assert quantizer.code_num == torch.tensor(levels).prod()
    assert len(quantizer.decode(codes).unique(dim=0)) == quantizer.code_num
    torch.nn.init.orthogonal_(quantizer.project_in.weight)
    reached = quantizer.encode(torch.randn(60 * quantizer.code_num, 16)).unique()
    assert torch.equal(reached, codes)


@pytest.mark.parametrize("scale", [0.1, 1.0, 1e3])
def test_fsq_uses_its_steps_whatever_the_size_of_encodings(scale):
    quantizer = FiniteScalarQuantizer((8, 8, 4), 32)
    torch.nn.init.orthogonal_(quantizer.project_in.weight)
    codes = quantizer.encode(scale * torch.randn(4096, 32))
    assert perplexity(codes, 256) > 128


def test_fsq_passes_gradients_and_stays_within_its_codes():
    quantizer = FiniteScalarQuantizer((8, 8, 4), 6)
    vectors = (100 * torch.randn(512, 6)).requires_grad_()
    quantized, commitment, codes = quantizer(vectors)
    quantized.sum().backward()
    assert commitment == 0 and vectors.grad.isfinite().all() and 0 <= codes.min() and codes.max() < 256
    assert torch.equal(quantizer.encode(vectors), codes)
    torch.testing.assert_close(quantizer.decode(codes), quantized)


def test_averages_stay_in_float32_when_the_model_is_cast():
    quantizer = EmaQuantizer(4, 2)
    before = quantizer.codebook.clone()
    module = torch.nn.ModuleDict({"quantizer": quantizer, "linear": torch.nn.Linear(2, 2)}).bfloat16()
    assert module["linear"].weight.dtype == torch.bfloat16
    assert torch.equal(module["quantizer"].codebook, before)
    assert {buffer.dtype for buffer in quantizer.buffers()} == {torch.float32, torch.bool}
