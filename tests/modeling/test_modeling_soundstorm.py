import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from solami_hf.modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig
from solami_hf.modeling.soundstorm.convert_soundstorm import convert_soundstorm
from solami_hf.modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel, SoundStormConvolution
from solami_hf.modeling.soundstorm.soundstorm_masking import choose, hide_codes, mask_cells

FOLDER = Path(__file__).parents[1] / "golden" / "soundstorm"
TINY = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 4, "intermediate_size": 32,
    "conv_channels": 16, "conv_kernel_size": 5, "num_quantizers": 4, "codebook_size": 12, "num_semantic_codes": 10,
    "max_frames": 100, "initializer_range": 0.3,
}  # fmt: skip
MASK = 12


@pytest.fixture(scope="module")
def golden():
    with np.load(FOLDER / "io.npz", allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def original():
    return convert_soundstorm(FOLDER / "soundstorm.pt", FOLDER / "config.json")


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return SolamiSoundStormModel(SolamiSoundStormConfig(**TINY)).eval()


def some_codes(frames: int, batch: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Level 0 (batch, frames) and a prompt (batch, 4, 6) for the tiny model."""
    random = torch.Generator().manual_seed(seed)
    prompt = torch.randint(10, (batch, 4, 6), generator=random)
    return torch.randint(10, (batch, frames), generator=random), prompt


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_levels(golden, codes: str, semantic: str) -> torch.Tensor:
    return torch.cat([golden[semantic][:, None], golden[codes].transpose(1, 2)], dim=1)


@torch.no_grad()
def test_original_logits(original, golden):
    codes = all_levels(golden, "fwd/codes", "fwd/cond_ids")
    unknown = codes.clone()
    unknown[:, 0] = 32
    for name, inputs, mask in (
        ("nomask", codes, None), ("mask", codes, golden["fwd/mask"]), ("nocond", unknown, None)
    ):  # fmt: skip
        logits = original(inputs, mask).logits.transpose(1, 2).flatten(1, 2)
        torch.testing.assert_close(logits, golden[f"fwd/logits_{name}"], atol=2e-5, rtol=0)


@pytest.mark.parametrize(("case", "steps", "draws"), [("prompt_s1", 1, 1), ("b2_s4", 4, 4), ("sampled_s2", 2, 9)])
def test_original_codes_and_network_inputs(original, golden, case, steps, draws):
    case, shapes, states = f"gen_{case}", [], []

    def draw(shape):
        # the original draws at temperature 0 too, where the numbers make no difference and are not stored
        shapes.append(tuple(shape))
        return golden.get(f"{case}/u{len(shapes) - 1}", torch.zeros(shape))

    codes = original.generate(
        golden[f"{case}/semantic"], golden[f"{case}/prompt"].transpose(1, 2), steps, draw, mode="upstream",
        greedy="sampled" not in case, on_call=lambda codes: states.append(codes[:, 1:].transpose(1, 2).flatten(1)),
    )  # fmt: skip
    assert torch.equal(torch.stack(states), golden[f"{case}/states"].long())
    assert torch.equal(codes.transpose(1, 2), golden[f"{case}/out"])
    batch, cells = golden[f"{case}/states"].shape[1:]
    assert shapes == [(batch, cells, 32)] * draws


def test_original_training_loss(original, golden):
    codes = all_levels(golden, "train/x", "train/cond")
    mask, start = golden["train/mask"], int(golden["train/t"])
    behind, cells = mask.clone(), torch.zeros_like(mask)
    behind[:, :start] = False
    cells[:, start:] = golden["train/subset_mask"]
    inputs, labels = mask_cells(codes, behind, golden["train/q"].expand(3), cells, 32)
    output = original(inputs, mask, labels)
    torch.testing.assert_close(output.loss, golden["train/loss"], atol=1e-5, rtol=0)
    assert output.logits is None and output.accuracy == 0
    gradient = torch.autograd.grad(output.loss, original.semantic_embedding.weight)[0]
    torch.testing.assert_close(gradient, golden["train/grad_sem_emb"], atol=1e-6, rtol=0)


@torch.no_grad()
def fill_slowly(model, semantic, prompt, steps) -> torch.Tensor:
    """The default mode, cell by cell from whole forward passes: what `generate` must equal without a generator."""
    size, codes = semantic.shape[1], torch.cat([prompt[:, 0], semantic], dim=1)[:, None].repeat(1, 4, 1)
    codes[:, 1:] = torch.cat([prompt[:, 1:], torch.full((len(semantic), 3, size), MASK)], dim=2)
    for level, count in enumerate(steps):
        for step in range(count):
            probabilities = model(codes).logits[:, level].softmax(-1)
            left = math.floor(math.cos(math.pi / 2 * (step + 1) / count) * size + 1e-9)
            for row in range(len(semantic)):
                still = [i for i in range(codes.shape[2]) if codes[row, level + 1, i] == MASK]
                still.sort(key=lambda i: -float(probabilities[row, i].max()))
                for i in still[: len(still) - left]:
                    codes[row, level + 1, i] = probabilities[row, i].argmax()
    return codes[:, :, -size:]


@pytest.mark.parametrize("steps", [4, [3, 2, 5], [9, 1, 1]])
@pytest.mark.parametrize("prompted", [True, False])
def test_default_mode_equals_whole_forward_passes(tiny, steps, prompted):
    semantic, prompt = some_codes(7, batch=2)
    prompt = prompt if prompted else prompt[..., :0]
    expected = fill_slowly(tiny, semantic, prompt, steps if isinstance(steps, list) else [4, 1, 1])
    codes = tiny.generate(semantic, prompt if prompted else None, steps)
    assert codes.dtype == torch.long and torch.equal(codes, expected)


@pytest.mark.parametrize("levels", [1, 5])
def test_levels_to_speak_are_levels_that_it_has(levels):
    with pytest.raises(ValueError, match=f"spoken_levels is {levels}, expected 2 to 4"):
        SolamiSoundStormConfig(**TINY, spoken_levels=levels)


@pytest.mark.parametrize("generator", [None, seeded(3)])
def test_prompt_stays_and_the_schedule_is_followed(tiny, generator):
    semantic, prompt = some_codes(20, batch=2)
    states: list[torch.Tensor] = []
    codes = tiny.generate(semantic, prompt, 4, generator, on_call=states.append)
    assert len(states) == 4 + 2
    for before, after in zip(states, [*states[1:], codes], strict=True):
        assert torch.equal(before[:, :, :6], prompt) and torch.equal(before[:, 0, 6:], semantic)
        filled = before[:, :, 6:] != MASK
        assert torch.equal(before[:, :, 6:][filled], after[..., -20:][filled])  # what is filled stays
    left = [(state[:, 1:, 6:] == MASK).sum(2).tolist() for state in states]
    # cos(90 / 4 i degrees) of 20 cells: 18.5, 14.1, 7.7
    assert left == [[[n, 20, 20]] * 2 for n in (20, 18, 14, 7)] + [[[0, 20, 20]] * 2, [[0, 0, 20]] * 2]
    assert codes.max() < MASK and torch.equal(codes[:, 0], semantic)


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("steps", [5, [3, 4, 2]])
def test_padded_batch_equals_clips_alone(tiny, random, steps):
    frames, prompt_frames = [9, 3, 30], [6, 2, 5]
    semantic, prompt = some_codes(33, batch=3)
    mask = torch.arange(33) < torch.tensor(frames)[:, None]
    prompt_mask = torch.arange(6) < torch.tensor(prompt_frames)[:, None]
    batch = tiny.generate(
        semantic, prompt, steps, [seeded(row) for row in range(3)] if random else None, code_mask=mask,
        prompt_mask=prompt_mask, greedy=False,
    )  # fmt: skip
    for row in range(3):
        alone = tiny.generate(
            semantic[row, None, : frames[row]], prompt[row, None, :, : prompt_frames[row]], steps,
            seeded(row) if random else None, greedy=False,
        )  # fmt: skip
        assert torch.equal(batch[row, :, : frames[row]], alone[0])
        assert not batch[row, :, frames[row] :].any()


@torch.no_grad()
def test_padding_does_not_reach_the_logits(tiny):
    codes = torch.randint(10, (1, 4, 12), generator=seeded(1))
    mask = torch.arange(12)[None] < 8
    alone, other = codes[..., :8], codes.clone()
    other[..., 8:] = 0
    logits = [tiny(codes, mask).logits[..., :8, :], tiny(other, mask).logits[..., :8, :], tiny(alone).logits]
    torch.testing.assert_close(logits[0], logits[2], atol=1e-5, rtol=0)
    assert torch.equal(logits[0], logits[1])
    assert (tiny(codes).logits[..., :8, :] - logits[2]).abs().max() > 1e-2


def test_random_numbers_come_from_the_generator_only(tiny):
    semantic, prompt = some_codes(25)
    first, again, other = (tiny.generate(semantic, prompt, generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    certain = tiny.generate(semantic, prompt)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(certain, tiny.generate(semantic, prompt, generator=seeded(1), temperature=0.0))
    # with `greedy` the levels of one step draw nothing: 4 steps draw for the cells still open, 25, 23, 17 and 9
    shapes = []
    tiny.generate(semantic, prompt, generator=lambda shape: torch.rand(shapes.append(tuple(shape)) or shape))
    assert shapes == [(25, 12), (23, 12), (17, 12), (9, 12)]
    assert not torch.equal(first, tiny.generate(semantic, prompt, generator=seeded(1), greedy=False))
    three = tiny.generate(semantic.repeat(3, 1), prompt, generator=seeded(1), temperature=5.0)
    assert all(not torch.equal(three[left], three[right]) for left, right in ((0, 1), (1, 2), (0, 2)))


def test_temperature_decides_how_often_the_best_code_is_drawn(tiny):
    semantic, prompt = some_codes(40)
    certain = tiny.generate(semantic, prompt)
    share = []
    for temperature in (0.01, 1.0, 100.0):
        drawn = tiny.generate(semantic, prompt, generator=seeded(0), temperature=temperature)
        share.append(float((drawn[:, 1] == certain[:, 1]).float().mean()))
    assert share[0] == 1 > share[1] > share[2]


def test_draws_are_among_the_best_three_tenths():
    logits, noise = torch.arange(10.0).repeat(2, 1), torch.zeros(2, 10)
    noise[0, 5], noise[1, 6] = 100, 100  # the original rounds 3.0000000000000004 up, so that four codes are best
    chosen, confidence = choose(logits, noise, 1.0)
    assert chosen.tolist() == [9, 6]
    torch.testing.assert_close(confidence, torch.arange(6.0, 10).softmax(0)[[3, 0]])
    chosen, confidence = choose(logits, None, 1.0)
    assert chosen.tolist() == [9, 9]
    torch.testing.assert_close(confidence, logits.softmax(-1)[:, 9])


def test_one_prompt_serves_every_clip(tiny):
    semantic, prompt = some_codes(7, batch=2)
    mask = torch.tensor([[True] * 4 + [False] * 2])
    shared = tiny.generate(semantic, prompt[:1], prompt_mask=mask)
    assert torch.equal(shared, tiny.generate(semantic, prompt[:1, :, :4].repeat(2, 1, 1)))


@torch.no_grad()
def test_chosen_cells_leave_the_last_layer(tiny):
    codes = torch.randint(10, (2, 4, 9), generator=seeded(1))
    embeddings, context = tiny.embed(codes), tiny.context(9)
    hidden, cells = tiny.encode(embeddings, context), torch.tensor([2, 5, 11])
    torch.testing.assert_close(tiny.encode(embeddings, context, cells), hidden.flatten(0, 1)[cells])
    torch.testing.assert_close(tiny.level_logits(hidden, 2), tiny(codes).logits[:, 2])


def test_channel_norm_bounds_the_variance_from_below(tiny):
    layer = SoundStormConvolution(tiny.config)
    hidden = torch.tensor([1.0, -1.0]).repeat(8)
    torch.testing.assert_close(layer._normalise(hidden[None]), hidden[None])
    torch.testing.assert_close(layer._normalise(1e-4 * hidden[None]), 0.1 * hidden[None])  # 1e-4 / sqrt(1e-6)
    assert not layer._normalise(torch.full((1, 16), 3.0)).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_saved_and_loaded(tiny, tmp_path, dtype):
    tiny.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, dtype=dtype)
    assert type(loaded) is SolamiSoundStormModel and loaded.dtype == dtype
    for name, value in tiny.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.to(dtype)), name
    semantic, prompt = some_codes(30, batch=2)
    codes, expected = loaded.generate(semantic, prompt), tiny.generate(semantic, prompt)
    assert (codes == expected).float().mean() > (0.8 if dtype == torch.bfloat16 else 0.97)
    assert loaded.generate(semantic, prompt, generator=seeded(0), mode="upstream").max() < MASK
    with torch.no_grad():
        logits = loaded(torch.cat([semantic[:, None], codes[:, 1:]], dim=1)).logits
        expected = tiny(torch.cat([semantic[:, None], codes[:, 1:]], dim=1)).logits
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().mean() < 0.02 * expected.std()


def test_weights_start_small_and_differ(tiny):
    for name, value in tiny.named_parameters():
        assert value.isfinite().all(), name
        if value.dim() > 1 and "bias" not in name:
            assert 0.2 < value.std() < 0.55, name


def test_hidden_cells_of_training():
    codes = torch.randint(10, (400, 4, 9), generator=seeded(0))
    mask = torch.arange(9) < torch.arange(400)[:, None] % 9 + 1
    inputs, labels = hide_codes(codes, mask, MASK, seeded(1))
    assert torch.equal(inputs[:, 0], codes[:, 0])
    learnt, hidden = labels != -100, inputs[:, 1:] == MASK
    assert (learnt.any(2).sum(1) == 1).all()  # one level of each clip
    assert torch.equal(labels[learnt], codes[:, 1:][learnt]) and (inputs[:, 1:][learnt] == MASK).all()
    assert torch.equal(inputs[:, 1:][~hidden], codes[:, 1:][~hidden])
    assert not (hidden & ~mask[:, None]).any()
    level = learnt.any(2).int().argmax(1)
    assert torch.bincount(level, minlength=3).min() > 100
    for row in range(400):
        first = level[row]
        assert not hidden[row, :first].any()  # levels below are known
        above = hidden[row, first + 1 :]
        assert (above == above[:1]).all()
        if len(above):  # all of those above are hidden behind the prompt, so the learnt cells are among them
            frames = above[0].nonzero()[:, 0]
            assert frames[-1] == mask[row].sum() - 1 and len(frames) == frames[-1] - frames[0] + 1
            assert not (learnt[row, first] & ~above[0]).any()
    again = hide_codes(codes, mask, MASK, seeded(1))
    assert torch.equal(again[0], inputs) and torch.equal(again[1], labels)
    # E cos(90 u degrees) = 2 / pi of the cells behind the prompt, rounded up
    full = hide_codes(codes[:1].repeat(4000, 1, 1), torch.ones(4000, 9, dtype=torch.bool), MASK, seeded(2))[1] != -100
    assert abs(full.sum() / 4000 - (2 / math.pi * 5 + 0.5)) < 0.15


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_step_reaches_every_weight(tiny, checkpointing):
    model = SolamiSoundStormModel(SolamiSoundStormConfig(**TINY | {"dropout": 0.1})).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    codes, mask = torch.randint(10, (16, 4, 9), generator=seeded(0)), torch.ones(16, 9, dtype=torch.bool)
    mask[0, 5:] = False
    inputs, labels = hide_codes(codes, mask, MASK, seeded(1))
    loss, accuracy = model(inputs, mask, labels, return_dict=False)
    assert 0 <= accuracy <= 1
    loss.backward()
    for name, value in model.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, name
    model.eval()
    everything = model(inputs, mask).logits[(labels != -100)[..., None].expand(-1, -1, -1, 12)].view(-1, 12)
    expected = torch.nn.functional.cross_entropy(everything, labels[labels != -100])
    output = model(inputs, mask, labels)
    torch.testing.assert_close(output.loss, expected)
    right = (everything.argmax(-1) == labels[labels != -100]).float().mean()
    assert 0 < right < 1
    torch.testing.assert_close(output.accuracy, right)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"semantic_codes": [[1, 2]]}, "semantic_codes is list"),
        ({"semantic_codes": torch.zeros(1, 5)}, "float32 of shape .* expected integers"),
        ({"semantic_codes": torch.zeros(5, dtype=torch.long)}, r"expected integers of shape \(batch, frames\)"),
        ({"semantic_codes": torch.zeros(1, 0, dtype=torch.long)}, "empty"),
        ({"semantic_codes": torch.full((1, 5), 10)}, "semantic_codes holds 10 to 10, expected 0 to 9"),
        ({"semantic_codes": torch.full((1, 5), -1)}, "expected 0 to 9"),
        ({"semantic_codes": torch.zeros(1, 98, dtype=torch.long)}, "98 frames, expected at most 100 together"),
        ({"prompt_codes": torch.zeros(1, 3, 4, dtype=torch.long)}, r"expected \(1 or 1, 4, frames\)"),
        ({"prompt_codes": torch.zeros(2, 4, 4, dtype=torch.long)}, "one prompt for each clip or for all"),
        ({"prompt_codes": torch.full((1, 4, 4), 10)}, "level 0 of prompt_codes holds 10"),
        ({"prompt_codes": torch.tensor([0, 12, 0, 0])[None, :, None]}, "prompt_codes holds 0 to 12, expected 0 to 11"),
        ({"code_mask": torch.ones(1, 4, dtype=torch.bool)}, "code_mask .* expected torch.bool of shape"),
        ({"code_mask": torch.zeros(1, 5, dtype=torch.bool)}, "code_mask row 0 is all padding"),
        ({"prompt_mask": torch.arange(4)[None] > 1}, "prompt_mask has padding before real"),
        ({"steps": 0}, "steps is 0, expected an integer of at least 1"),
        ({"steps": 2.0}, "steps is 2.0"),
        ({"steps": [1, 2]}, "or 3 of them"),
        ({"mode": "fast"}, "mode is 'fast'"),
        ({"generator": 7}, "generator is int, expected a torch.Generator or a function"),
        ({"generator": lambda shape: torch.rand(3)}, r"generator gave numbers of shape \(3,\)"),
        ({"generator": [torch.Generator()] * 2}, "generator has 2 entries for 1 clips"),
        ({"mode": "upstream", "code_mask": torch.arange(5)[None] < 3}, "takes no padding"),
        ({"mode": "upstream", "steps": [1, 2, 1]}, "one step for levels 2"),
    ],
)
def test_bad_input_of_generate(tiny, change, message):
    valid = {
        "semantic_codes": torch.zeros(1, 5, dtype=torch.long), "prompt_codes": torch.zeros(1, 4, 4, dtype=torch.long)
    }  # fmt: skip
    if "code_mask" in change and change.get("mode") == "upstream":
        valid["semantic_codes"] = valid["semantic_codes"].repeat(2, 1)
        change = change | {"code_mask": torch.cat([change["code_mask"], torch.ones(1, 5, dtype=torch.bool)])}
    with pytest.raises(ValueError, match=message):
        tiny.generate(**valid | change)


@pytest.mark.parametrize(
    ("codes", "labels", "message"),
    [
        (torch.zeros(1, 3, 5, dtype=torch.long), None, r"expected \(batch, 4, frames\)"),
        (torch.zeros(1, 4, 0, dtype=torch.long), None, "at least one frame"),
        (torch.zeros(1, 4, 5), None, "expected integers"),
        (torch.full((1, 4, 5), 11), None, "level 0 of audio_codes holds 11 to 11, expected 0 to 10"),
        (torch.zeros(1, 4, 5, dtype=torch.long), torch.zeros(1, 4, 5, dtype=torch.long), r"expected \(1, 3, 5\)"),
        (torch.zeros(1, 4, 5, dtype=torch.long), torch.full((1, 3, 5), -100), "mask at least one cell"),
    ],
)
def test_bad_input_of_forward(tiny, codes, labels, message):
    with pytest.raises(ValueError, match=message):
        tiny(codes, labels=labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 0}, "hidden_size is 0"), ({"num_quantizers": 1}, "at least 2"),
        ({"head_dim": 5}, "even number"), ({"conv_kernel_size": 4}, "odd number"), ({"dropout": 1.0}, "below 1"),
    ],
)  # fmt: skip
def test_bad_config(change, message):
    with pytest.raises(ValueError, match=message):
        SolamiSoundStormConfig(**change)
