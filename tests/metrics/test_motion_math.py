"""The maths of the motion metrics against golden vectors of the original, and against cases known by hand."""

import numpy as np
import pytest

from solami_hf.metrics import motion_math as mm


@pytest.fixture(scope="module")
def functions(golden):
    with np.load(golden / "metrics/functions.npz", allow_pickle=False) as data:
        return dict(data)


@pytest.mark.parametrize("clip", range(3))
@pytest.mark.parametrize(("axis", "up_axis"), [("y", 1), ("z", 2)])
@pytest.mark.parametrize("window", [1, 2])
def test_kinetic_features_are_the_originals(functions, clip, axis, up_axis, window):
    joints = functions["kin/joints"][clip, : functions["kin/lengths"][clip]]
    features = mm.kinetic_features(joints, up_axis=up_axis, window=window)
    np.testing.assert_allclose(features, functions[f"kin/feat_{axis}_sw{window}"][clip], rtol=1e-5)


def test_kinetic_features_of_a_steady_walk():
    # 1 m/s along x and 2 m/s upwards, no acceleration.
    t = np.arange(10)[:, None, None] / 30
    features = mm.kinetic_features(t * np.array([1.0, 2.0, 0.0]) + np.zeros((10, 2, 3)))
    np.testing.assert_allclose(features, [1, 4, 0, 1, 4, 0], atol=1e-9)


def test_kinetic_features_of_constant_acceleration():
    t = np.arange(12)[:, None, None] / 60
    features = mm.kinetic_features(0.5 * 3.0 * t**2 * np.array([0.0, 0.0, 1.0]) + np.zeros((12, 1, 3)), fps=60)
    # The last window has no acceleration of its own centre, but neighbours that have one.
    assert features[2] == pytest.approx(3.0)


def test_frechet_distance_is_the_originals(functions):
    a, b = functions["fid/a"], functions["fid/b"]
    assert mm.frechet_distance(a, b) == pytest.approx(float(functions["fid/raw"]), rel=1e-5)
    ours = mm.frechet_distance(mm.standardize_upstream(a), mm.standardize_upstream(b))
    assert ours == pytest.approx(float(functions["fid/normalised"]), rel=1e-5)
    np.testing.assert_allclose(mm.standardize_upstream(a), functions["fid/a_norm"], rtol=1e-5)


def test_own_statistics_hide_a_change_of_scale_and_ours_do_not(functions):
    a, b = functions["fid/a"], functions["fid/b"]
    hidden = mm.frechet_distance(mm.standardize_upstream(a), mm.standardize_upstream(7 * b + 3))
    assert hidden == pytest.approx(float(functions["fid/normalised_shift_scale"]), rel=1e-5)
    seen = mm.frechet_distance(mm.standardize(7 * b + 3, a), mm.standardize(a, a))
    assert seen > 10 * mm.frechet_distance(mm.standardize(b, a), mm.standardize(a, a))


def test_frechet_distance_with_fewer_samples_than_features():
    few = np.random.default_rng(0).normal(size=(8, 30))
    assert mm.frechet_distance(few, few) == pytest.approx(0, abs=1e-4)


def test_moments_of_batches_are_those_of_the_whole(functions):
    a, b = functions["fid/a"], functions["fid/b"] + 1000.0
    moments = mm.Moments(np.array_split(b, [1, 7, 200]))
    np.testing.assert_allclose(moments.mean, b.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance(), np.cov(b, rowvar=False), rtol=1e-8)
    reference = mm.Moments([a])
    standardized = mm.Moments([mm.standardize(b, a)])
    np.testing.assert_allclose(moments.standardized(reference).mean, standardized.mean, rtol=1e-9)
    np.testing.assert_allclose(
        moments.standardized(reference).covariance(), standardized.covariance(), rtol=1e-7, atol=1e-7
    )
    own = mm.Moments([mm.standardize_upstream(b)]).covariance()
    np.testing.assert_allclose(moments.standardized(moments, upstream=True).covariance(), own, atol=1e-7)


def test_kinetic_batches_are_the_whole_set(monkeypatch):
    monkeypatch.setattr(mm, "MOTIONS_AT_ONCE", 2)
    motions = [np.random.default_rng(i).normal(size=(6 + i, 55, 3)) for i in range(5)]
    batches = [*mm.kinetic_batches(iter(motions))]
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(
        np.concatenate(batches), [mm.kinetic_features(m[:, mm.KINETIC_JOINTS]) for m in motions]
    )
    features = np.random.default_rng(9).normal(size=(5, 3))
    pairs = [np.linalg.norm(features[i] - features[j]) for i in range(5) for j in range(i)]
    assert mm.diversity(features) == pytest.approx(np.mean(pairs))


def test_parents_are_those_of_the_body():
    from solami_hf.processing.motion.body import SMPLX_PARENTS

    assert mm.PARENTS == SMPLX_PARENTS


@pytest.mark.parametrize("rates", [(30, 25), ([30, 30, 20], None), (0, None), (float("nan"), None)])
def test_different_or_impossible_rates(rates):
    with pytest.raises(ValueError, match="`fps`"):
        mm.check_fps(*rates)
    assert mm.check_fps([30, 30.0], 30) == 30


def test_diversity_of_drawn_pairs(functions):
    a = functions["fid/a"]
    pairs = np.linalg.norm(a[functions["div/idx1"]] - a[functions["div/idx2"]], axis=1).mean()
    assert pairs == pytest.approx(float(functions["div/a_50"]), rel=1e-5)


def test_diversity_is_the_mean_over_all_pairs():
    assert mm.diversity(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])) == pytest.approx(10 / 3)


def test_a_constant_feature_is_only_centred():
    reference = np.array([[1.0, 5.0, 0.0], [3.0, 5.0, 2.0]])
    np.testing.assert_allclose(mm.standardize(np.array([[2.0, 6.0, 2.0]]), reference), [[0.0, 1.0, 1.0]])


def test_joints_that_hardly_move_do_not_decide():
    moving, still = np.array([[1.0, 0.1, 10.0], [3.0, 0.3, 30.0]]), 1e-5
    reference = np.concatenate([moving, moving, [[0.0] * 3, [still] * 3]], axis=1)
    found = mm.standardize(reference[:1] + 0.1 * reference.std(axis=0), reference)
    np.testing.assert_allclose(found[0, :6], -0.9)
    np.testing.assert_allclose(found[0, 6:], -0.9 * still / 2 / (0.01 * np.array([1.0, 0.1, 10.0])))


@pytest.mark.parametrize(
    ("align", "name"), [(0, "fn/mpjpe_align0"), (None, "fn/mpjpe_align_none"), ((1, 2), "fn/mpjpe_align_01_2")]
)
def test_position_error_is_the_originals(functions, align, name):
    error = mm.position_error(functions["fn/rst"], functions["fn/ref"], align)
    np.testing.assert_allclose(error, functions[name], rtol=1e-5)


def test_joints_marked_as_missing_are_left_out_as_by_the_original(functions, load):
    ref, rst = functions["fn/ref"].astype(np.float64), functions["fn/rst"].astype(np.float64)
    distances = mm.joint_distances(rst, ref)
    np.testing.assert_allclose(distances.ravel(), functions["fn/mpjpe_not_samplewise"], rtol=1e-5)
    masked = ref.copy()
    masked[3, 10:20, 0] = -2.0
    error = mm.position_error(rst, masked, None, upstream=True)
    np.testing.assert_allclose(error, functions["fn/mpjpe_masked"], rtol=1e-5)
    mpjpe = load("motion_mpjpe").compute(predictions=[rst], references=[masked], mode="upstream")["mpjpe"]
    distances[3, 10:20] = np.nan
    assert mpjpe == pytest.approx(1000 * np.nanmean(distances, axis=1).mean())
    masked[5, :, 0] = -2.0
    with pytest.raises(ValueError, match="frame without joints: all have x = -2.0"):
        mm.position_error(rst, masked, upstream=True)


def test_procrustes_error_is_the_originals(functions):
    ref, rst = functions["fn/ref"].astype(np.float64), functions["fn/rst"].astype(np.float64)
    _, scale, rotation, translation = mm.similarity_align(rst, ref)
    np.testing.assert_allclose(mm.procrustes_error(rst, ref), functions["fn/pampjpe"], rtol=1e-5)
    np.testing.assert_allclose(scale, functions["fn/pa_scale"], rtol=1e-5)
    np.testing.assert_allclose(rotation, functions["fn/pa_R"], atol=1e-5)
    np.testing.assert_allclose(translation, functions["fn/pa_t"][..., 0], atol=1e-5)
    mirrored = mm.procrustes_error(ref * [-1, 1, 1], ref)
    np.testing.assert_allclose(mirrored, functions["fn/pampjpe_mirrored"], rtol=1e-5)


@pytest.mark.parametrize("frames", [2, 3, 4])
def test_procrustes_error_of_short_clips(functions, frames):
    ref, rst = functions["fn/ref"][:frames].astype(np.float64), functions["fn/rst"][:frames].astype(np.float64)
    upstream = mm.procrustes_error(rst, ref, upstream=True)
    np.testing.assert_allclose(upstream, functions[f"fn/pampjpe_T{frames}"], atol=1e-6)
    np.testing.assert_allclose(mm.procrustes_error(rst, ref), functions["fn/pampjpe"][:frames], rtol=1e-5)


def test_acceleration_and_angles_are_the_originals(functions):
    ref, rst = functions["fn/ref"].astype(np.float64), functions["fn/rst"].astype(np.float64)
    np.testing.assert_allclose(mm.acceleration_error(rst, ref), functions["fn/accel"], rtol=1e-5)
    np.testing.assert_allclose(mm.angle_error_upstream(rst, ref), functions["fn/rotvec_error_on_joints"], rtol=1e-5)
    angle = mm.geodesic_angle(functions["fn/rv_a"].astype(np.float64), functions["fn/rv_b"].astype(np.float64))
    np.testing.assert_allclose(angle.mean(-1), functions["fn/rotvec_error"], rtol=1e-5)


def test_bone_angle_of_a_quarter_turn():
    straight = np.array([[[0.0, 0, 0], [0, 1, 0], [0, 2, 0], [0, 2, 0]]])
    bent = np.array([[[0.0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 0]]])
    # Bones: one alike, one turned by 90 degrees, one without length.
    np.testing.assert_allclose(mm.bone_angle(straight, bent, (-1, 0, 1, 2)), [45.0])


@pytest.mark.parametrize(
    ("joints", "message"),
    [
        (np.zeros((5, 54, 3)), r"`x` has shape \(5, 54, 3\), expected \(T, 55, 3\)"),
        (np.zeros((55, 3)), r"`x` has shape \(55, 3\)"),
        (np.zeros((0, 55, 3)), "`x` has 0 frames, expected at least 3"),
        (np.full((4, 55, 3), np.nan), "`x` holds NaN or infinite values"),
        ("motion", "`x` is no array of numbers, expected"),
        (None, "`x`"),
    ],
)
def test_bad_joints(joints, message):
    with pytest.raises(ValueError, match=message):
        mm.check_joints(joints, "x")


def test_bad_pairs():
    motion = np.zeros((4, 55, 3))
    with pytest.raises(ValueError, match="got 1 `predictions` and 2 `references`"):
        [*mm.checked_pairs([motion], [motion, motion])]
    with pytest.raises(ValueError, match="got 0 `predictions`"):
        [*mm.checked_pairs([], [])]
    with pytest.raises(ValueError, match="every item of `predictions` is None"):
        [*mm.checked_pairs([None], [motion])]
    with pytest.raises(ValueError, match=r"references\[0\]"):
        [*mm.checked_pairs([motion], [None])]
    longer = np.zeros((6, 55, 3))
    ((made, real, frames),) = mm.checked_pairs([None, motion], [motion, longer])
    assert len(made) == len(real) == 4 and frames == 6


def test_too_few_motions():
    with pytest.raises(ValueError, match="expected at least 2"):
        mm.frechet_distance(np.zeros((1, 4)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match="expected at least 2"):
        mm.diversity(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="use mode='corrected'"):
        mm.diversity_upstream(np.zeros((20, 4)), np.zeros((60, 4)), seed=0)
