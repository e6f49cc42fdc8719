from pathlib import Path

import numpy as np
import pytest
import torch

from solami_hf.modeling.convert import convert_motion_vq
from solami_hf.processing.motion.features import features_to_smplx, smplx_to_features

FOLDER = Path(__file__).parents[1] / "golden" / "vqvae"
PATHS = {name: FOLDER / f"{name}.pth" for name in ("body", "hand", "transform")}
IO = np.load(FOLDER / "io.npz", allow_pickle=False)


def golden(key: str) -> torch.Tensor:
    return torch.from_numpy(IO[key])


@pytest.fixture(scope="module")
def model():
    return convert_motion_vq(**PATHS, mean=0, std=1)


def test_sizes_are_read_from_the_tensors(model):
    config = model.config
    assert (config.features_size, config.body_features_size, config.down_t) == (315, 135, 2)
    assert (config.body_depth, config.hand_depth, config.body_width, config.hand_code_num) == (3, 2, 32, 64)
    assert (config.transform_code_num, config.transform_code_dim, config.transform_hidden_sizes) == (256, 16, [48, 96])


@pytest.mark.parametrize("frames", [61, 5])
@torch.no_grad()
def test_codes_and_reconstruction_equal_the_original(model, frames):
    values = torch.cat([golden(f"{part}/T{frames}/feats") for part in ("body", "hand")], dim=-1)
    codes = model.encode(values)
    assert torch.equal(codes.body_codes, golden(f"body/T{frames}/ids"))
    assert torch.equal(codes.hand_codes, golden(f"hand/T{frames}/ids"))
    expected = torch.cat([golden(f"{part}/T{frames}/forward") for part in ("body", "hand")], dim=-1)
    decoded = model.decode(codes.body_codes, codes.hand_codes)
    torch.testing.assert_close(decoded.motion_values, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(model(values).motion_values, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_group_norm_and_gelu_equal_the_original():
    model = convert_motion_vq(FOLDER / "body_gn.pth", PATHS["hand"], PATHS["transform"], 0, 1, body_activation="gelu")
    assert model.config.body_norm == "group" and model.config.hand_norm is None
    values = torch.cat([golden("body_gn/T61/feats"), torch.zeros(1, 61, 180)], dim=-1)
    assert torch.equal(model.encode(values).body_codes, golden("body_gn/T61/ids"))
    torch.testing.assert_close(
        model(values).motion_values[..., :135], golden("body_gn/T61/forward"), atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_transform_equals_the_original(model):
    codes = model.encode_transform(golden("transform/feats"))
    assert torch.equal(codes, golden("transform/ids")[:, 0])
    torch.testing.assert_close(model.decode_transform(codes), golden("transform/decode"), atol=1e-5, rtol=0)


@torch.no_grad()
def test_from_parameters_to_codes_and_back(tmp_path):
    golden = np.load(FOLDER / "e2e.npz", allow_pickle=False)
    for name in ("mean", "std"):
        np.save(tmp_path / f"{name}.npy", golden[name])
    model = convert_motion_vq(**PATHS, mean=tmp_path / "mean.npy", std=golden["std"])
    codes = model.encode(smplx_to_features(torch.from_numpy(golden["params"])))
    assert np.array_equal(codes.body_codes, golden["body_ids"]) and np.array_equal(
        codes.hand_codes, golden["hand_ids"]
    )
    params = features_to_smplx(model.decode(codes.body_codes, codes.hand_codes).motion_values)
    np.testing.assert_allclose(params, golden["recovered"], atol=1e-4)


def test_one_lightning_checkpoint_for_all(tmp_path, model):
    states = {name: torch.load(path, weights_only=True) for name, path in PATHS.items()}
    state = {f"vae_{name}.{key}": value for name, part in states.items() for key, value in part.items()}
    path = tmp_path / "all.ckpt"
    torch.save({"state_dict": state}, path)
    again = convert_motion_vq(path, path, path, 0, 1)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_the_loaded_codebook_survives_training():
    model = convert_motion_vq(**PATHS, mean=0, std=1).train()
    before = model.body.quantizer.codebook.clone()
    codes = model.eval().encode(golden("body/T61/feats").repeat(1, 1, 3)[..., :315]).body_codes.unique()
    out = model.train()(golden("body/T61/feats").repeat(1, 1, 3)[..., :315])
    assert torch.equal(out.body_codes.unique(), codes)
    used = model.body.quantizer.codebook[codes]
    assert (used - before[codes]).abs().max() < 0.2  # moved by a hundredth, not replaced


def test_bad_checkpoints_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        convert_motion_vq(tmp_path / "none.pth", PATHS["hand"], PATHS["transform"], 0, 1)
    (tmp_path / "text.pth").write_text("hello", encoding="utf-8")
    with pytest.raises(ValueError, match="no checkpoint of plain tensors"):
        convert_motion_vq(tmp_path / "text.pth", PATHS["hand"], PATHS["transform"], 0, 1)
    with pytest.raises(ValueError, match="lacks 'encoder.model.0.weight'"):
        convert_motion_vq(PATHS["transform"], PATHS["hand"], PATHS["transform"], 0, 1)
    with pytest.raises(ValueError, match=r"`mean` has shape \(3,\), expected \(315,\)"):
        convert_motion_vq(**PATHS, mean=np.zeros(3), std=1)


def test_checkpoints_that_would_run_code_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="no checkpoint of plain tensors"):
        convert_motion_vq(tmp_path / "evil.pth", PATHS["hand"], PATHS["transform"], 0, 1)
    assert not (tmp_path / "ran").exists()
