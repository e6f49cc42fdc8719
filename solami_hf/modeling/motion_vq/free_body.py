"""The free body's rest skeleton, made by `research/free_body/build_body.py`; the README beside it says from what.

A module and no JSON file, since code that travels to the Hub can bring other code along, but no data.
"""

# Metres, T-pose, y up, facing +z, the pelvis at 0; one row a joint in SMPL-X order.
REST = (
    (0.0, 0.0, 0.0),  # pelvis
    (0.11023, -0.09091, 0.0),  # left_hip
    (-0.11023, -0.09091, 0.0),  # right_hip
    (0.0, 0.07161, -0.01547),  # spine1
    (0.11023, -0.49212, 0.0),  # left_knee
    (-0.11023, -0.49212, 0.0),  # right_knee
    (-0.0, 0.15322, -0.01435),  # spine2
    (0.11023, -0.92819, 0.0),  # left_ankle
    (-0.11023, -0.92819, 0.0),  # right_ankle
    (-0.0, 0.28748, -0.02658),  # spine3
    (0.11023, -0.97712, 0.14967),  # left_foot
    (-0.11023, -0.97712, 0.14967),  # right_foot
    (0.0, 0.4741, 0.0031),  # neck
    (0.02357, 0.39895, 0.01872),  # left_collar
    (-0.02357, 0.39895, 0.01872),  # right_collar
    (-0.0, 0.57846, 0.04102),  # head
    (0.17988, 0.37593, 0.01661),  # left_shoulder
    (-0.17988, 0.37593, 0.01661),  # right_shoulder
    (0.44856, 0.37593, 0.01661),  # left_elbow
    (-0.44856, 0.37593, 0.01661),  # right_elbow
    (0.69061, 0.37593, 0.01661),  # left_wrist
    (-0.69061, 0.37593, 0.01661),  # right_wrist
    (0.0, 0.5805, 0.06484),  # jaw
    (0.03009, 0.6186, 0.12042),  # left_eye_smplhf
    (-0.03009, 0.6186, 0.12042),  # right_eye_smplhf
    (0.80113, 0.3713, 0.04436),  # left_index1
    (0.82871, 0.3713, 0.04436),  # left_index2
    (0.85338, 0.3713, 0.04436),  # left_index3
    (0.80017, 0.37593, 0.01661),  # left_middle1
    (0.83621, 0.37593, 0.01661),  # left_middle2
    (0.86557, 0.37593, 0.01661),  # left_middle3
    (0.78391, 0.3713, -0.02374),  # left_pinky1
    (0.80671, 0.3713, -0.02374),  # left_pinky2
    (0.82332, 0.3713, -0.02374),  # left_pinky3
    (0.79403, 0.37634, -0.00411),  # left_ring1
    (0.82568, 0.37634, -0.00411),  # left_ring2
    (0.85214, 0.37634, -0.00411),  # left_ring3
    (0.73075, 0.37173, 0.0425),  # left_thumb1
    (0.74303, 0.34975, 0.06334),  # left_thumb2
    (0.77001, 0.3307, 0.08365),  # left_thumb3
    (-0.80113, 0.3713, 0.04436),  # right_index1
    (-0.82871, 0.3713, 0.04436),  # right_index2
    (-0.85338, 0.3713, 0.04436),  # right_index3
    (-0.80017, 0.37593, 0.01661),  # right_middle1
    (-0.83621, 0.37593, 0.01661),  # right_middle2
    (-0.86557, 0.37593, 0.01661),  # right_middle3
    (-0.78391, 0.3713, -0.02374),  # right_pinky1
    (-0.80671, 0.3713, -0.02374),  # right_pinky2
    (-0.82332, 0.3713, -0.02374),  # right_pinky3
    (-0.79403, 0.37634, -0.00411),  # right_ring1
    (-0.82568, 0.37634, -0.00411),  # right_ring2
    (-0.85214, 0.37634, -0.00411),  # right_ring3
    (-0.73075, 0.37173, 0.0425),  # right_thumb1
    (-0.74303, 0.34975, 0.06334),  # right_thumb2
    (-0.77001, 0.3307, 0.08365),  # right_thumb3
)
# Height of the soles.
SOLE = -1.00492
