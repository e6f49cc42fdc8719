"""Other skeletons to SMPL-X: made ones whose answer is known, and a recording of CMU's."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from solami_hf.processing.motion.body import (
    SMPLX_JOINT_NAMES,
    SMPLX_PARENTS,
    joint_positions,
    rest_joints,
    standing_height,
)
from solami_hf.processing.motion.formats.bvh import read_bvh, read_skeleton_motion
from solami_hf.processing.motion.retarget import SkeletonMotion, match_joints, retarget
from solami_hf.processing.motion.smplx_motion import SmplxMotion

CMU_CLIP = Path(__file__).parents[1] / "data" / "cmu_01_01.bvh"
CMU_FULL = Path("/usr/share/assimp/models/BVH")
JOINT = {name: index for index, name in enumerate(SMPLX_JOINT_NAMES)}
BODY = range(22)

# parts of a chain from the pelvis: trunk; leg; arm from the trunk's last joint; as (part, SMPL-X's name) pairs
CONVENTIONS = {
    "smplx": (
        "pelvis=pelvis spine1=spine1 spine2=spine2 spine3=spine3 neck=neck head=head",
        "left_hip=hip left_knee=knee left_ankle=ankle left_foot=foot",
        "left_collar=collar left_shoulder=shoulder left_elbow=elbow left_wrist=wrist left_index1=index1",
    ),
    "cmu": (
        "Hips=pelvis LowerBack=spine1 Spine=spine2 Spine1=spine3 Neck=- Neck1=neck Head=head",
        "LHipJoint=- LeftUpLeg=hip LeftLeg=knee LeftFoot=ankle LeftToeBase=foot",
        "LeftShoulder=collar LeftArm=shoulder LeftForeArm=elbow LeftHand=wrist LeftFingerBase=- LFingers=middle1",
    ),
    "mixamo": (
        "mixamorig:Hips=pelvis mixamorig:Spine=spine1 mixamorig:Spine1=spine2 mixamorig:Spine2=spine3 "
        "mixamorig:Neck=neck mixamorig:Head=head mixamorig:HeadTop_End=-",
        "mixamorig:LeftUpLeg=hip mixamorig:LeftLeg=knee mixamorig:LeftFoot=ankle mixamorig:LeftToeBase=foot "
        "mixamorig:LeftToe_End=-",
        "mixamorig:LeftShoulder=collar mixamorig:LeftArm=shoulder mixamorig:LeftForeArm=elbow "
        "mixamorig:LeftHand=wrist mixamorig:LeftHandIndex1=index1 mixamorig:LeftHandIndex2=index2 "
        "mixamorig:LeftHandIndex3=index3 mixamorig:LeftHandIndex4=-",
    ),
    "humanik": (
        "Character1_Hips=pelvis Character1_Spine=spine1 Character1_Spine1=spine3 Character1_Neck=neck "
        "Character1_Head=head",
        "Character1_LeftUpLeg=hip Character1_LeftLeg=knee Character1_LeftFoot=ankle Character1_LeftToeBase=foot",
        "Character1_LeftShoulder=collar Character1_LeftArm=shoulder Character1_LeftForeArm=elbow "
        "Character1_LeftHand=wrist Character1_LeftInHandPinky=- Character1_LeftHandPinky1=pinky1",
    ),
    "beat": (
        "Hips=pelvis Spine=spine1 Spine1=- Spine2=spine2 Spine3=spine3 Neck=- Neck1=neck Head=head HeadEnd=-",
        "LUpLeg=hip LLeg=knee LFoot=ankle LFootF=- LToeBase=foot",
        "LShoulder=collar LArm=shoulder LArm1=elbow LHand=wrist LHandR=- LHandR1=ring1 LHandR2=ring2 LHandR3=ring3",
    ),
    "xsens": (
        "Hips=pelvis Chest=spine1 Chest2=- Chest3=spine2 Chest4=spine3 Neck=neck Head=head",
        "LeftHip=hip LeftKnee=knee LeftAnkle=ankle LeftToe=foot",
        "LeftCollar=collar LeftShoulder=shoulder LeftElbow=elbow LeftWrist=wrist",
    ),
    "bandai": (
        "joint_Root=- Hips=pelvis Spine=spine1 Chest=spine3 Neck=neck Head=head",
        "UpperLeg_L=hip LowerLeg_L=knee Foot_L=ankle Toes_L=foot",
        "Shoulder_L=collar UpperArm_L=shoulder LowerArm_L=elbow Hand_L=wrist",
    ),
    "unreal": (
        "root=- pelvis=pelvis spine_01=spine1 spine_02=spine2 spine_03=spine3 neck_01=neck head=head",
        "thigh_l=hip calf_l=knee foot_l=ankle ball_l=foot",
        "clavicle_l=collar upperarm_l=shoulder lowerarm_l=elbow hand_l=wrist thumb_01_l=thumb1 thumb_02_l=thumb2",
    ),
    "vroid": (
        "J_Bip_C_Hips=pelvis J_Bip_C_Spine=spine1 J_Bip_C_Chest=spine2 J_Bip_C_UpperChest=spine3 J_Bip_C_Neck=neck "
        "J_Bip_C_Head=head J_Sec_Hair1_01=-",
        "J_Bip_L_UpperLeg=hip J_Bip_L_LowerLeg=knee J_Bip_L_Foot=ankle J_Bip_L_ToeBase=foot",
        "J_Bip_L_Shoulder=collar J_Bip_L_UpperArm=shoulder J_Bip_L_LowerArm=elbow J_Bip_L_Hand=wrist "
        "J_Bip_L_Little1=pinky1 J_Bip_L_Little2=pinky2",
    ),
    "motive": (
        "Hip=pelvis Ab=spine1 Chest=spine3 Neck=neck Head=head",
        "LThigh=hip LShin=knee LFoot=ankle LToe=foot",
        "LShoulder=collar LUArm=shoulder LFArm=elbow LHand=wrist LIndex1=index1",
    ),
    "daz": (
        "hip=- pelvis=pelvis abdomenLower=spine1 abdomenUpper=- chestLower=spine2 chestUpper=spine3 neckLower=- "
        "neckUpper=neck head=head lowerJaw=jaw",
        "lThighBend=hip lThighTwist=- lShin=knee lFoot=ankle lMetatarsals=- lToe=foot lBigToe=-",
        "lCollar=collar lShldrBend=shoulder lShldrTwist=- lForearmBend=elbow lForearmTwist=- lHand=wrist lCarpal1=- "
        "lIndex1=index1 lIndex2=index2",
    ),
    "no collars, no toes": (
        "hip=pelvis chest=spine1 head=head",
        "l_thigh=hip l_shin=knee l_foot=ankle",
        "l_shoulder=shoulder l_elbow=elbow l_wrist=wrist",
    ),
}
_MIRRORED = str.maketrans({"L": "R", "l": "r"})


def mirrored(name: str) -> str:
    """The name of the right side's joint."""
    for left, right in (("Left", "Right"), ("left", "right")):
        if left in name:
            return name.replace(left, right)
    if name.startswith("J_Bip_L_"):
        return name.replace("_L_", "_R_")
    if name.endswith(("_L", "_l")):
        return name[:-1] + name[-1].translate(_MIRRORED)
    return name[0].translate(_MIRRORED) + name[1:]


def skeleton_of(convention: tuple[str, str, str]) -> tuple[list[str], list[int], dict[str, str]]:
    """Names, parents, and SMPL-X's name -> the name expected to stand for it."""
    trunk, leg, arm = ([pair.split("=") for pair in part.split()] for part in convention)
    names, parents, expected = [], [], {}

    def chain(pairs, above):
        for name, ours in pairs:
            parents.append(above)
            above = len(names)
            names.append(name)
            if ours != "-":
                expected[ours] = name

    pelvis = next(i for i, (_, ours) in enumerate(trunk) if ours == "pelvis")
    chest = max(i for i, (_, ours) in enumerate(trunk) if ours.startswith("spine"))
    chain(trunk, -1)
    for side, rename in (("left", str), ("right", mirrored)):
        chain([(rename(name), ours if ours == "-" else f"{side}_{ours}") for name, ours in leg], pelvis)
        chain([(rename(name), ours if ours == "-" else f"{side}_{ours}") for name, ours in arm], chest)
    return names, parents, expected


@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=CONVENTIONS.keys())
def test_names_of_known_conventions(convention):
    names, parents, expected = skeleton_of(convention)
    found = {SMPLX_JOINT_NAMES[ours]: names[theirs] for ours, theirs in match_joints(names, parents).items()}
    if "LFingers" in names:  # one joint moves all four fingers
        for side in "left", "right":
            expected |= {f"{side}_{finger}1": expected[f"{side}_middle1"] for finger in ("index", "ring", "pinky")}
    assert found == expected


def test_smplx_names_match_themselves():
    assert match_joints(list(SMPLX_JOINT_NAMES), list(SMPLX_PARENTS)) == {joint: joint for joint in range(55)}


@pytest.mark.parametrize("missing", ["Hips", "LeftLeg", "RightFoot", "RightForeArm", "LeftHand"])
def test_a_missing_limb_is_an_error_that_lists_what_was_found(missing):
    names, parents, _ = skeleton_of(CONVENTIONS["cmu"])
    names[names.index(missing)] = "Tail"
    with pytest.raises(ValueError, match="no joint known as .*its joints are .*LeftToeBase.*RFingers"):
        match_joints(names, parents)


def random_motion(frames=30, scale=0.4) -> SmplxMotion:
    """A motion whose first frame is the T-pose."""
    rng = np.random.default_rng(3)
    poses = np.zeros((frames, 55, 3))
    poses[1:] = rng.normal(scale=scale, size=(frames - 1, 55, 3))
    poses[1:, 0] *= 4
    return SmplxMotion(rng.normal(size=(frames, 3)) * [2, 0.1, 2] + [0, standing_height(), 0], poses, fps=60.0)


def in_other_axes(motion: SmplxMotion, axes: list[Rotation], to_world: Rotation, size: float) -> SkeletonMotion:
    """The motion on a skeleton whose joints' axes are turned by `axes` (55) as seen in SMPL-X's rest pose."""
    rest, turned, local, offsets = rest_joints(), [], [], np.zeros((55, 3))
    for joint, parent in enumerate(SMPLX_PARENTS):
        own = Rotation.from_rotvec(motion.poses[:, joint].astype(np.float64))
        turned.append(own if parent < 0 else turned[parent] * own)
        world = to_world * turned[joint] * axes[joint]
        if parent < 0:
            local.append(world)
        else:
            local.append((to_world * turned[parent] * axes[parent]).inv() * world)
            offsets[joint] = axes[parent].inv().apply(rest[joint] - rest[parent]) * size
    positions = {0: to_world.apply(motion.transl) * size}
    return SkeletonMotion(list(SMPLX_JOINT_NAMES), list(SMPLX_PARENTS), offsets, local, positions, motion.fps)


def posed_rest(turns: dict[str, Rotation], facing: Rotation) -> list[Rotation]:
    """Axes that make the rest pose one in which the named limbs (all below them follow) are turned."""
    stance = [Rotation.identity()] * 55
    for joint, parent in enumerate(SMPLX_PARENTS):
        if parent >= 0:
            stance[joint] = turns.get(SMPLX_JOINT_NAMES[joint], Rotation.identity()) * stance[parent]
    return [(facing * turn).inv() for turn in stance]


def about_z(left_degrees: float, joint: str) -> dict[str, Rotation]:
    return {
        f"{side}_{joint}": Rotation.from_euler("z", sign * left_degrees, degrees=True)
        for side, sign in (("left", 1), ("right", -1))
    }


REST_POSES = {
    "t-pose": {},
    "a-pose": about_z(-45, "shoulder"),
    "arms down": about_z(-90, "shoulder"),
    "legs apart": about_z(20, "hip"),
    "feet turned out": {
        "left_ankle": Rotation.from_euler("y", 25, degrees=True),
        "right_ankle": Rotation.from_euler("y", -25, degrees=True),
    },
    "arms forward": {
        "left_shoulder": Rotation.from_euler("y", -90, degrees=True),
        "right_shoulder": Rotation.from_euler("y", 90, degrees=True),
    },
    "curled fingers": about_z(-40, "index2") | about_z(-70, "ring1"),
}


@pytest.mark.parametrize("facing", [0, 90, 180, -37], ids=lambda angle: f"facing {angle}")
@pytest.mark.parametrize("turns", REST_POSES.values(), ids=REST_POSES.keys())
def test_rest_poses_do_not_change_the_motion(turns, facing):
    motion = random_motion()
    axes = posed_rest(turns, Rotation.from_euler("y", facing, degrees=True))
    back = retarget(in_other_axes(motion, axes, Rotation.identity(), size=37.0))
    assert np.abs(joint_positions(back) - joint_positions(motion)).max() < 1e-5
    assert np.abs(back.transl - motion.transl).max() < 1e-5 and back.fps == 60.0


def test_soles_stay_flat_where_the_joints_of_the_foot_lie_higher():
    motion = random_motion()
    source = in_other_axes(motion, [Rotation.identity()] * 55, Rotation.identity(), size=1.0)
    for foot in (JOINT["left_foot"], JOINT["right_foot"]):
        source.offsets[foot] = [0.0, -0.13, 0.12]  # the toes 47 degrees below the ankle instead of 18
    assert np.abs(joint_positions(retarget(source)) - joint_positions(motion)).max() < 1e-5


def test_a_z_up_skeleton_is_turned_upright():
    motion = random_motion()
    to_world = Rotation.from_euler("x", 90, degrees=True)  # y becomes z
    axes = [to_world.inv()] * 55
    back = retarget(in_other_axes(motion, axes, to_world, size=1.0))
    assert np.abs(joint_positions(back) - joint_positions(motion)).max() < 1e-5


def test_the_upward_axis_of_the_world_can_be_told():
    motion = random_motion()
    to_world = Rotation.from_euler("x", 90, degrees=True)
    source = in_other_axes(motion, [Rotation.identity()] * 55, to_world, size=1.0)  # rests y-up, moves z-up
    back = retarget(source, up_axis="z")
    assert np.abs(joint_positions(back) - joint_positions(motion)).max() < 1e-5
    assert np.abs(retarget(source).transl - motion.transl).max() > 0.5


@pytest.mark.parametrize("up_axis", ["y", "z"])
def test_bones_along_odd_axes_take_an_upright_frame_as_reference(up_axis):
    # LaFAN1 and Bandai Namco lay every bone along x, so their rest pose is a heap
    motion = random_motion(scale=0.2)
    heap = list(Rotation.random(55, rng=np.random.default_rng(5)))
    to_world = Rotation.from_euler("x", 90 if up_axis == "z" else 0, degrees=True)
    back = retarget(in_other_axes(motion, heap, to_world, size=100.0), up_axis=up_axis)
    assert np.abs(joint_positions(back) - joint_positions(motion)).max() < 1e-4


def test_a_heap_that_never_stands_is_refused():
    motion = random_motion()
    motion.poses[:, 1:3] = [-1.5, 0, 0]  # sits in every frame
    heap = list(Rotation.random(55, rng=np.random.default_rng(5)))
    with pytest.raises(ValueError, match="upright"):
        retarget(in_other_axes(motion, heap, Rotation.identity(), size=1.0))


def test_legs_without_length_are_refused():
    motion = in_other_axes(random_motion(), [Rotation.identity()] * 55, Rotation.identity(), size=1.0)
    motion.offsets[:] = 0
    with pytest.raises(ValueError, match="length|upright"):
        retarget(motion)


def test_joints_between_known_ones_lose_no_rotation():
    motion = random_motion()
    source = in_other_axes(motion, [Rotation.identity()] * 55, Rotation.identity(), size=1.0)
    part = Rotation.from_rotvec(np.random.default_rng(1).normal(size=(30, 3)))
    for known, added in (("left_hip", "LHipJoint"), ("spine2", "Torso7"), ("head", "Nape"), ("left_elbow", "ArmRoll")):
        joint = source.names.index(known)  # the added joint stands in its place, with a part of its rotation
        source.names.insert(joint, added)
        source.parents = [parent + (parent >= joint) for parent in source.parents]
        source.parents.insert(joint, source.parents[joint])
        source.parents[joint + 1] = joint
        source.offsets = np.insert(source.offsets, joint + 1, 0.0, axis=0)
        source.rotations[joint : joint + 1] = [part, part.inv() * source.rotations[joint]]
    assert np.abs(joint_positions(retarget(source)) - joint_positions(motion)).max() < 1e-5


@pytest.fixture(scope="module")
def cmu():
    return read_bvh(CMU_CLIP)


def test_cmu_clip_begins_in_a_t_pose(cmu):
    assert cmu.num_frames == 120 and cmu.fps == 30.0
    joints = joint_positions(cmu)[0]
    assert joints[JOINT["left_wrist"], 0] - joints[JOINT["right_wrist"], 0] > 1.2  # left is +x where +z is ahead
    assert np.abs(joints[[JOINT["left_wrist"], JOINT["right_wrist"]], 1] - joints[JOINT["neck"], 1]).max() < 0.2
    assert joints[JOINT["left_foot"], 2] > joints[JOINT["left_ankle"], 2] + 0.1


def test_cmu_clip_stands_on_the_floor_and_jumps_ahead(cmu):
    joints = joint_positions(cmu)
    feet = joints[:, [JOINT[f"{side}_{part}"] for side in ("left", "right") for part in ("ankle", "foot")], 1]
    assert feet.min() > -0.02 and np.median(feet.min(axis=1)) < 0.1
    assert 1.45 < np.median(joints[:, JOINT["head"], 1]) < 1.65
    left = joints[:, JOINT["left_hip"]] - joints[:, JOINT["right_hip"]]
    ahead = np.cross(left, [0, 1, 0])
    travel = joints[-1, 0] - joints[0, 0]
    assert np.linalg.norm(travel[[0, 2]]) > 0.5  # metres
    assert travel @ ahead[0] / np.linalg.norm(travel) / np.linalg.norm(ahead[0]) > 0.9


def test_cmu_limbs_point_where_those_of_the_file_do(cmu):
    source = read_skeleton_motion(CMU_CLIP)
    theirs, _ = source.forward_kinematics()
    ours = joint_positions(cmu)
    for side, prefix in (("left", "Left"), ("right", "Right")):
        for (top, end), (their_top, their_end) in {
            ("hip", "knee"): ("UpLeg", "Leg"),
            ("knee", "ankle"): ("Leg", "Foot"),
            ("shoulder", "elbow"): ("Arm", "ForeArm"),
            ("elbow", "wrist"): ("ForeArm", "Hand"),
        }.items():
            a = ours[:, JOINT[f"{side}_{end}"]] - ours[:, JOINT[f"{side}_{top}"]]
            b = theirs[:, source.names.index(prefix + their_end)] - theirs[:, source.names.index(prefix + their_top)]
            cosine = (a * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
            assert cosine.min() > 1 - 1e-5


def test_cmu_knees_and_elbows_bend_as_they_can(cmu):
    joints = joint_positions(cmu)
    for side in ("left", "right"):
        thigh = joints[:, JOINT[f"{side}_knee"]] - joints[:, JOINT[f"{side}_hip"]]
        shin = joints[:, JOINT[f"{side}_ankle"]] - joints[:, JOINT[f"{side}_knee"]]
        left = joints[:, JOINT["left_hip"]] - joints[:, JOINT["right_hip"]]
        bend = np.degrees(np.linalg.norm(cmu.poses[:, JOINT[f"{side}_knee"]], axis=-1))
        assert 40 < bend.max() < 130
        # turning a bent knee about "left" takes the thigh's direction backwards to the shin's
        assert (np.cross(thigh, shin) * left).sum(axis=-1)[bend > 20].min() > 0


@pytest.mark.system("assimp-testmodels")
@pytest.mark.parametrize("name", ["01_01", "Boxing_Toes"])
def test_whole_recordings_stay_on_the_floor(name):
    joints = joint_positions(read_bvh(CMU_FULL / f"{name}.bvh"))
    feet = joints[:, [7, 8, 10, 11], 1].min(axis=1)
    assert feet.min() > -0.1 and np.median(feet) < 0.1
