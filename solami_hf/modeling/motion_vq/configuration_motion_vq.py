"""Configuration of the motion tokenizers (SOLAMI, arXiv 2412.00174, section 3.2)."""

import math

from transformers import PreTrainedConfig

_ACTIVATIONS = ("relu", "gelu", "silu")
_NORMS = (None, "group")
_LOSS_MODES = ("corrected", "upstream")
_QUANTIZERS = ("ema", "fsq")
_NETWORKS = ("conv", "linear")
_REPRESENTATIONS = ("local_rotation", "global_rotation", "joints")
# Features of `joints`: the root's nine, and positions of 21 body joints, jaw and eyes; then of 30 finger joints
_BODY_OF_JOINTS, _HAND_OF_JOINTS = 9 + 3 * 24, 3 * 30
_LARGEST_LEVEL = 8


# A saved folder carries its code, so it loads with `trust_remote_code` where the package is not installed.
_AUTO_MAP = {
    "AutoConfig": "configuration_motion_vq.SolamiMotionVQConfig",
    "AutoModel": "modeling_motion_vq.SolamiMotionVQModel",
}


class SolamiMotionVQConfig(PreTrainedConfig):
    """Sizes of a [`SolamiMotionVQModel`]. The defaults are the paper's.

    Args:
        features_size (`int`): motion features a frame; the body reads the first `body_features_size` of them, the hand
            the rest.
        body_features_size (`int`): see above.
        bound (`bool`): one tokenizer, with one codebook, for all features, instead of one each for body and hand. Its
            codes are `body` codes, its sizes those of the body; there are no hand codes.
        representation (`str`): what the networks see of the features, see `motion_representation`: "local_rotation"
            as they come, "global_rotation" relative to the pelvis, or "joints", positions on the free body. Raw
            features go in and come out in each.
        network (`str`): "conv", the paper's encoder and decoder, or "linear": one linear map of a code's frames to its
            latent and one back, which training starts from principal components and keeps; before the way back
            `depth` residual blocks at the rate of codes mend latents by those around them.
        residual_hand (`bool`): of a "linear" network; the body's code tells all features, the hand's what it leaves of
            them all, so codes go where a motion needs them. They have one network, with the sizes of the body.
        candidates (`int`): codes that `encode` tries at each place for level 0. 1 takes the nearest; of several that
            with which decoded joints come nearest to their places is taken.
        body_code_num, hand_code_num (`int`): codes of each codebook.
        body_code_dim, hand_code_dim (`int`): width of a codebook vector.
        body_width, hand_width (`int`): channels of the convolutions.
        body_depth, hand_depth (`int`): residual blocks of a stage; block k of the reversed order has dilation
            `dilation_growth_rate ** k`.
        body_activation, hand_activation (`str`): "relu", "gelu" or "silu", in residual blocks.
        body_norm, hand_norm (`str`, *optional*): `None`, or "group" for GroupNorm of 32 groups in residual blocks.
        body_dilation_growth_rate, hand_dilation_growth_rate (`int`): see `body_depth`.
        down_t (`int`): stages that halve the time, so a code stands for `2 ** down_t` frames.
        transform_features_size, transform_code_num, transform_code_dim (`int`): the transform tokenizer's sizes.
        transform_hidden_sizes (`list[int]`): widths of its two hidden layers; the decoder has them in this order too.
        fps (`float`): frames per second of the motion.
        causal (`bool`): convolutions look back only, so that motion can be encoded and decoded chunk by chunk.
        quantizer (`str`): "ema", the paper's codebooks of moving averages, or "fsq", finite scalar quantization
            (arXiv 2309.15505), for body and hand; the transform's is always "ema".
        body_fsq_levels, hand_fsq_levels (`list[int]`, *optional*): steps of each channel of "fsq"; their product is
            the number of codes. Default: the largest divisors up to 8, as [8, 8, 8] for 512.
        codebook_decay (`float`): share of the old codebook statistics that one training step keeps.
        dead_code_threshold (`float`): a code whose averaged count a step falls below is replaced in training.
        random_restart (`bool`): replace a dead code by a random vector of the batch. `False` takes the one of the same
            index, as the original does: those of the batch's first clips only.
        num_levels (`int`): codes of body and of hand at each time, 1 to 8: those of level 0 are a tokenizer of their
            own, each further level codes what those before it left over.
        shared_levels (`bool`): one quantizer for all levels above 0, instead of one each.
        level_dropout (`float`): share of clips of which training decodes the first few levels only, any number.
        velocity_features (`int`): the first raw features, which count again in the loss; of "joints" their positions.
        feature_weight, velocity_weight, commitment_weight (`float`): weights in the loss.
        loss_mode (`str`): "corrected", or "upstream": the original adds the commitment of body and hand twice and
            that of the transform never.
        std_floor (`float`): smallest standard deviation that features are divided by.

    Raises ValueError: a size below 1, an unknown name, or parts that do not fit together.
    """

    model_type = "solami_motion_vq"

    features_size: int = 315
    body_features_size: int = 135
    bound: bool = False
    representation: str = "local_rotation"
    network: str = "conv"
    residual_hand: bool = False
    candidates: int = 1
    body_code_num: int = 512
    body_code_dim: int = 512
    body_width: int = 512
    body_depth: int = 3
    body_activation: str = "relu"
    body_norm: str | None = None
    body_dilation_growth_rate: int = 3
    hand_code_num: int = 512
    hand_code_dim: int = 512
    hand_width: int = 512
    hand_depth: int = 3
    hand_activation: str = "relu"
    hand_norm: str | None = None
    hand_dilation_growth_rate: int = 3
    down_t: int = 2
    transform_features_size: int = 5
    transform_code_num: int = 256
    transform_code_dim: int = 16
    transform_hidden_sizes: list[int] | tuple[int, ...] = (48, 96)
    fps: float = 30.0
    causal: bool = False
    quantizer: str = "ema"
    body_fsq_levels: list[int] | tuple[int, ...] | None = None
    hand_fsq_levels: list[int] | tuple[int, ...] | None = None
    codebook_decay: float = 0.99
    dead_code_threshold: float = 1.0
    random_restart: bool = True
    num_levels: int = 1
    shared_levels: bool = False
    level_dropout: float = 0.5
    velocity_features: int = 75
    feature_weight: float = 1.0
    velocity_weight: float = 2.0
    commitment_weight: float = 0.1
    loss_mode: str = "corrected"
    std_floor: float = 1e-4

    def __post_init__(self, **kwargs):
        self.transform_hidden_sizes = list(self.transform_hidden_sizes)
        self.body_fsq_levels = list(self.body_fsq_levels or _levels(self.body_code_num))
        self.hand_fsq_levels = list(self.hand_fsq_levels or _levels(self.hand_code_num))
        self._check()
        super().__post_init__(**{"auto_map": dict(_AUTO_MAP), **kwargs})

    def _check(self) -> None:
        for name in SolamiMotionVQConfig.__annotations__:
            value = getattr(self, name)
            if name.endswith(("_size", "_num", "_dim", "_width", "_depth", "_rate", "down_t")) and value < 1:
                raise ValueError(f"`{name}` is {value}, expected at least 1.")
        for name, allowed in (("activation", _ACTIVATIONS), ("norm", _NORMS)):
            for part in ("body", "hand"):
                value = getattr(self, f"{part}_{name}")
                if value not in allowed:
                    raise ValueError(f"`{part}_{name}` is {value!r}, expected one of {allowed}.")
        for part in ("body", "hand"):
            if getattr(self, f"{part}_norm") == "group" and getattr(self, f"{part}_width") % 32:
                raise ValueError(f"`{part}_width` is {getattr(self, f'{part}_width')}, expected a multiple of 32.")
        known = {"loss_mode": _LOSS_MODES, "quantizer": _QUANTIZERS, "representation": _REPRESENTATIONS}
        known["network"] = _NETWORKS
        for name, allowed in known.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}, expected one of {allowed}.")
        sizes = (self.features_size, self.body_features_size)
        if self.representation != "local_rotation" and sizes != (315, 135):
            raise ValueError(
                f"`features_size` and `body_features_size` are {sizes}, expected (315, 135): only these features can "
                f"be told as {self.representation!r}."
            )
        for part in ("body", "hand"):
            levels, codes = getattr(self, f"{part}_fsq_levels"), getattr(self, f"{part}_code_num")
            if self.quantizer == "fsq" and (math.prod(levels) != codes or min(levels) < 2):
                raise ValueError(
                    f"`{part}_fsq_levels` is {levels}, expected whole numbers from 2 on whose product is "
                    f"`{part}_code_num` ({codes})."
                )
            if self.causal and getattr(self, f"{part}_norm") is not None:
                raise ValueError(f"`{part}_norm` looks at the whole clip, so it does not go with `causal`.")
        if self.body_features_size >= self.features_size:
            raise ValueError(
                f"`body_features_size` is {self.body_features_size}, expected less than `features_size` "
                f"({self.features_size}): the hand reads the rest."
            )
        if len(self.transform_hidden_sizes) != 2 or min(self.transform_hidden_sizes) < 1:
            raise ValueError(f"`transform_hidden_sizes` is {self.transform_hidden_sizes}, expected two sizes.")
        if not 0 <= self.codebook_decay < 1:
            raise ValueError(f"`codebook_decay` is {self.codebook_decay}, expected at least 0 and below 1.")
        if not 1 <= self.num_levels <= 8 or not 0 <= self.level_dropout <= 1:
            given = f"`num_levels` is {self.num_levels} and `level_dropout` {self.level_dropout}"
            raise ValueError(f"{given}, expected 1 to 8 levels and a share from 0 to 1.")
        if self.residual_hand and (self.network != "linear" or self.bound or self.body_code_dim != self.hand_code_dim):
            given = f"`network` {self.network!r}, `bound` {self.bound}, code_dim {self.body_code_dim}"
            raise ValueError(f"`residual_hand` is of 'linear' networks with two codes of one width, not of {given}.")
        if self.candidates < 1 or (self.candidates > 1 and (self.causal or self.quantizer != "ema")):
            raise ValueError(
                f"`candidates` is {self.candidates}, expected at least 1, and 1 with `causal` (a search looks ahead) "
                "and with `fsq`."
            )
        if not self.fps > 0:
            raise ValueError(f"`fps` is {self.fps}, expected a positive rate.")

    @property
    def hand_features_size(self) -> int:
        """Raw features of the hands."""
        return self.features_size - self.body_features_size

    @property
    def parts(self) -> tuple[str, ...]:
        """The tokenizers of a frame's features: body and hand, or, bound, the body's alone."""
        return ("body",) if self.bound else ("body", "hand")

    @property
    def input_sizes(self) -> dict[str, int]:
        """Features that each network reads, in the representation; a residual hand has none."""
        sizes = self.body_features_size, self.hand_features_size
        if self.representation == "joints":
            sizes = _BODY_OF_JOINTS, _HAND_OF_JOINTS
        return {"body": sum(sizes)} if self.bound or self.residual_hand else dict(zip(self.parts, sizes, strict=True))

    @property
    def velocity_size(self) -> int:
        """`velocity_features` in the representation: positions have half as many values as rotations."""
        if self.representation != "joints":
            return self.velocity_features
        whole = max(self.velocity_features - 9, 0) // 2 + min(self.velocity_features, 9)
        return whole if self.velocity_features <= 135 else whole + 9  # jaw and eyes

    @property
    def modality_sizes(self) -> dict[str, int]:
        """Number of codes of `body`, `hand` and `trans`; of `hand` 0 where it is bound."""
        hand = 0 if self.bound else self.hand_code_num
        return {"body": self.body_code_num, "hand": hand, "trans": self.transform_code_num}

    @property
    def frames_per_code(self) -> int:
        """Frames that one body and one hand code stand for (4)."""
        return 2**self.down_t

    @property
    def frame_rate(self) -> float:
        """Codes per second of body and hand each (7.5)."""
        return self.fps / self.frames_per_code


def _levels(code_num: int) -> list[int]:
    """Few and nearly equal steps whose product is `code_num`, or less where it has a larger prime factor."""
    levels = []
    while code_num > 1:
        divisor = next((d for d in range(_LARGEST_LEVEL, 1, -1) if code_num % d == 0), None)
        if divisor is None:
            break
        levels.append(divisor)
        code_num //= divisor
    return levels
