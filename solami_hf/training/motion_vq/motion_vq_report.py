"""The page of a motion tokenizer's run: held-out clips beside their reconstructions, curves, and the last figures."""

from pathlib import Path

import torch

from ...modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from ...processing.motion.features import features_to_joints, features_to_smplx
from ...processing.motion.smplx_motion import SmplxMotion
from ...report.page import LARGEST_COORDINATE, Conversation, Performer, Scene, write_report
from ..held_out import evaluating, last_evaluation, last_step, spread
from ..run_page import curves_of_log, figures_of
from ..trackers import TrackedMedia
from .motion_vq_data import MotionClip
from .motion_vq_evaluation import joint_errors, reconstruct

_SCENES, _LONGEST_SCENE, _ASIDE = 6, 300, 0.5  # clips, frames, metres from the middle
_CURVES = {
    "Loss": ("loss", "loss", "feature_loss", "velocity_loss", "transform_loss"),
    "Distance of encodings to their codes": ("loss", "commitment_loss", "transform_commitment_loss"),
    "Effective number of codes in a batch": ("codes", "body_perplexity", "hand_perplexity", "transform_perplexity"),
    "Share of the codebook that a batch uses": ("share", "body_usage", "hand_usage"),
    "Joints of held-out clips": ("mm", "eval_body_mpjpe", "eval_root_mpjpe", "eval_hand_mpjpe"),
    "Accelerations of held-out clips": ("mm per frame squared", "eval_accel"),
}
_FIGURES = {
    "body_mpjpe": ("Body, mm", 1, "Mean distance of the 22 body joints, drift of the way included."),
    "mpjpe": ("Body and fingers, mm", 1, "The same with the finger joints."),
    "root_mpjpe": ("Pose, mm", 1, "Body and fingers with the pelvis put in place in every frame."),
    "hand_mpjpe": ("Fingers, mm", 1, "Finger joints, relative to their wrist."),
    "accel": ("Acceleration, mm/frame²", 1, "Mean difference of the joints' accelerations: what looks like jitter."),
    "reconstruction_error": ("Features", 1, "SmoothL1 of normalised features, as in the loss."),
    "body_perplexity": ("Body codes", 1, "Effective number over all held-out clips."),
    "hand_perplexity": ("Hand codes", 1, "Effective number over all held-out clips."),
    "body_codes_used": ("Body codebook used, %", 100, "Share of its codes that the held-out clips use."),
    "hand_codes_used": ("Hand codebook used, %", 100, "Share of its codes that the held-out clips use."),
}


def write_motion_vq_report(
    folder: str | Path,
    model: SolamiMotionVQModel,
    clips: list[MotionClip],
    log: list[dict[str, float]],
    media: TrackedMedia | None = None,
) -> Path:
    """Writes `folder/report.html`, whose table shows the last evaluation of the run, and returns its path. Of the
    held-out clips six are shown; without any, the page has neither figures nor scenes. `media`, the trackers, get the
    scenes too."""
    evaluation = last_evaluation(log, "eval_clips")
    lead = f"Motion tokenizers after {last_step(log)} steps."
    if model.body.quantizer.bypass:
        lead += " So far the networks learn without quantization, and all errors below are without it."
    if evaluation:
        lead += (
            f" Of {evaluation['eval_clips']} held-out clips, codes bring the body back to within "
            f"{evaluation['eval_body_mpjpe']:.0f} mm and the fingers to within {evaluation['eval_hand_mpjpe']:.0f} mm "
            "on average."
        )
    conversations = _scenes(model, clips)
    if media:
        shown = [scene for conversation in conversations for scene in conversation.scenes]
        media.motions([(s.title, [s.user.joints, s.character.joints]) for s in shown], model.config.fps)
    return write_report(
        Path(folder) / "report.html",
        title="Motion tokenizers: what they keep of a movement",
        lead=lead,
        conversations=conversations,
        curves=curves_of_log(log, _CURVES, held_out=""),
        metrics=figures_of(evaluation, _FIGURES, f"{evaluation.get('eval_clips', 0)} held-out clips, reconstructed"),
    )


def _scenes(model: SolamiMotionVQModel, clips: list[MotionClip]) -> list[Conversation]:
    """Clips from all over the list, each with its reconstruction a metre aside."""
    with evaluating(model):
        scenes = [_scene(model, clip) for clip in spread(clips, _SCENES)]
    about = f"{len(scenes)} of {len(clips)} held-out clips, the original on the left of the reconstruction."
    return [Conversation("Held-out clips", about, scenes, together=True)] if scenes else []


def _scene(model: SolamiMotionVQModel, clip: MotionClip) -> Scene:
    values = clip.features[None, :_LONGEST_SCENE].to(model.device)
    mask = torch.ones(values.shape[:2], dtype=torch.bool, device=model.device)
    result = reconstruct(model, values, mask)[0].float().nan_to_num()
    joints = [features_to_joints(motion) for motion in (values[:, : result.shape[1]], result)]
    errors = {name: float(error.mean()) for name, error in joint_errors(joints[1], joints[0]).items()}
    told = f"Body {errors['body_mpjpe']:.0f} mm off, fingers {errors['hand_mpjpe']:.0f} mm."
    fps, performers = model.config.fps, []
    for name, motion, side, words in (
        ("Original", values[:, : result.shape[1]], _ASIDE, f"{result.shape[1] / model.config.fps:.1f} s"),
        ("Reconstruction", result, -_ASIDE, told),
    ):
        # whoever faces us has their left, +x, on our right; a network that went wrong may leave the page's world
        params = features_to_smplx(motion)[0].cpu().double().numpy()
        params[:, :3] = (params[:, :3] - [side, 0.0, 0.0]).clip(-LARGEST_COORDINATE, LARGEST_COORDINATE)
        performers.append(Performer.of_motion(name, SmplxMotion.from_params(params, fps), None, words))
    return Scene(clip.id, "", *performers)
