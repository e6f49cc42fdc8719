"""A text-motion evaluator: captions and motions to embeddings in one space, trained by contrast.

After TMR (Petrovich et al. 2023, arXiv 2305.00976) without its decoder: convolutions and attention over joint
positions on one side, a sentence encoder and a projection on the other, InfoNCE (arXiv 1807.03748) between them.

    evaluator = SolamiMotionEvaluatorModel.from_pretrained(folder)
    cosines = evaluator.encode_motion(joints) @ evaluator.encode_text(**tokenizer(captions, return_tensors="pt")).T
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel, BertConfig, BertModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from ..remote_code import CarriesItsCode
from .configuration_motion_evaluator import SolamiMotionEvaluatorConfig

_BODY, _FINGERS = slice(1, 22), slice(25, 55)  # of SMPL-X's joints; jaw and eyes follow the head
_WRISTS = [20] * 15 + [21] * 15
_FEATURES = 3 * (2 + 2 * 21 + 30)
_STRIDE = 4  # frames of one place of the attention
_HOTTEST = 4.6  # log of the largest scale of the cosines, 100


@dataclass
class SolamiMotionEvaluatorOutput(ModelOutput):
    """`loss`: mean InfoNCE of both directions, in nats; `motion_embeds` and `text_embeds`: (batch, embedding_size), of
    length 1. Loss and text are None without captions."""

    loss: torch.FloatTensor | None = None
    motion_embeds: torch.FloatTensor | None = None
    text_embeds: torch.FloatTensor | None = None


class SolamiMotionEvaluatorModel(CarriesItsCode, PreTrainedModel):
    """See the module; embeddings are compared by their products, which are cosines."""

    config_class = SolamiMotionEvaluatorConfig
    base_model_prefix = "motion_evaluator"
    main_input_name = "joints"
    code_file = __file__

    def __init__(self, config: SolamiMotionEvaluatorConfig):
        super().__init__(config)
        size = config.hidden_size
        self.register_buffer("mean", torch.zeros(_FEATURES))
        self.register_buffer("std", torch.ones(_FEATURES))
        self.first = nn.Conv1d(_FEATURES, size, 5, stride=2, padding=2)
        self.second = nn.Conv1d(size, size, 5, stride=2, padding=2)
        self.motion_encoder = BertModel(_encoder_config(config), add_pooling_layer=False)
        self.motion_head = nn.Linear(size, config.embedding_size)
        self.text_model = AutoModel.from_config(config.text_config)
        width = config.text_config.hidden_size
        self.text_head = nn.Sequential(nn.Linear(width, size), nn.GELU(), nn.Linear(size, config.embedding_size))
        self.log_scale = nn.Parameter(torch.empty(()))
        self.post_init()
        self.text_model.requires_grad_(False)

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if module is self:
            init.zeros_(self.mean)
            init.ones_(self.std)
            init.constant_(self.log_scale, 2.66)  # 1 / 0.07, as in CLIP

    def train(self, mode: bool = True):
        """As in torch; the sentence encoder does not learn and stays in evaluation mode."""
        super().train(mode)
        self.text_model.eval()
        return self

    def set_statistics(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Sets what features (222,) are normalised with, see `motion_values`."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def encode_motion(self, joints: torch.Tensor, padding_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Embeddings (batch, embedding_size) of length 1 of joints (batch, frames, 55, 3): positions in metres, y up,
        at `config.fps`; place and first facing are of no account. `padding_mask` (batch, frames) is boolean, True = a
        frame of the motion; padding is behind. Raises ValueError: another shape, fewer than 3 frames, or more than
        `config.max_frames`."""
        if joints.ndim != 4 or joints.shape[2:] != (55, 3) or not 3 <= joints.shape[1] <= self.config.max_frames:
            raise ValueError(
                f"joints are {tuple(joints.shape)}, expected (B, T, 55, 3) of 3 to {self.config.max_frames} frames"
            )
        mask = joints.new_ones(joints.shape[:2], dtype=torch.bool) if padding_mask is None else padding_mask.bool()
        if mask.shape != joints.shape[:2]:
            raise ValueError(f"padding_mask is {tuple(mask.shape)}, expected {tuple(joints.shape[:2])} as joints")
        values = (motion_values(joints, mask) - self.mean) / self.std
        hidden = (values * mask[..., None]).to(self.first.weight.dtype).transpose(1, 2)
        for layer in (self.first, self.second):
            mask = mask[:, ::2]
            hidden = F.gelu(layer(hidden)) * mask[:, None]
        hidden = self.motion_encoder(inputs_embeds=hidden.transpose(1, 2), attention_mask=mask.long())[0]
        return F.normalize(self.motion_head(_mean_over(hidden, mask)), dim=-1)

    def encode_text(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        sentence_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings (batch, embedding_size) of length 1 of captions, or of what `encode_sentence` made of them."""
        if sentence_embeds is None:
            sentence_embeds = self.encode_sentence(input_ids, attention_mask)
        return F.normalize(self.text_head(sentence_embeds), dim=-1)

    def encode_sentence(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Mean of the sentence encoder's last layer, (batch, its width) of length 1."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self.text_model(input_ids=input_ids, attention_mask=mask).last_hidden_state
        return F.normalize(_mean_over(hidden, mask.bool()), dim=-1)

    def forward(
        self,
        joints: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        sentence_embeds: torch.Tensor | None = None,
        caption_ids: torch.Tensor | None = None,
    ) -> SolamiMotionEvaluatorOutput:
        """Embeddings of pairs and their contrastive loss; motions as in `encode_motion`, captions as in `encode_text`.
        `caption_ids` (batch,) are numbers of the captions; pairs with the same one are not set against each other."""
        motions = self.encode_motion(joints, padding_mask)
        if input_ids is None and sentence_embeds is None:
            return SolamiMotionEvaluatorOutput(motion_embeds=motions)
        texts = self.encode_text(input_ids, attention_mask, sentence_embeds)
        scores = (motions @ texts.T).float() * self.log_scale.clamp(max=_HOTTEST).exp()
        own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        if caption_ids is not None:
            scores = scores.masked_fill((caption_ids[:, None] == caption_ids) & ~own, float("-inf"))
        wanted = torch.arange(len(scores), device=scores.device)
        loss = (F.cross_entropy(scores, wanted) + F.cross_entropy(scores.T, wanted)) / 2
        return SolamiMotionEvaluatorOutput(loss, motions, texts)


def motion_values(joints: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Features (batch, frames, 222) of joint positions (batch, frames, 55, 3) turned to begin at x = z = 0 facing +z.
    Place and step of the pelvis, the body's joints from the pelvis and their steps, the fingers from their wrists. A
    step is metres from the frame before; the first is 0."""
    start = joints[:, :1, :1] * joints.new_tensor([1.0, 0.0, 1.0])
    across = joints[:, 0, 1] - joints[:, 0, 2] + joints[:, 0, 16] - joints[:, 0, 17]
    c, s = F.normalize(across[:, [0, 2]], dim=-1).T
    still = across[:, [0, 2]].norm(dim=-1) < 1e-6
    c = torch.where(still, 1.0, c)
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    turn = torch.stack([c, zero, s, zero, one, zero, -s, zero, c], dim=-1).view(-1, 1, 3, 3)
    turned = (joints - start) @ turn.transpose(-1, -2)
    pelvis, body = turned[:, :, :1], turned[:, :, _BODY] - turned[:, :, :1]
    fingers = turned[:, :, _FINGERS] - turned[:, :, _WRISTS]
    steps = torch.cat([pelvis, body], 2).diff(dim=1, prepend=torch.cat([pelvis, body], 2)[:, :1])
    if mask is not None:
        steps = steps * mask[..., None, None]
    return torch.cat([pelvis, body, steps, fingers], dim=2).flatten(2)


def _mean_over(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def _encoder_config(config: SolamiMotionEvaluatorConfig) -> BertConfig:
    """BERT's configuration of the motion encoder."""
    return BertConfig(
        vocab_size=1,
        hidden_size=config.hidden_size,
        intermediate_size=2 * config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        max_position_embeddings=-(-config.max_frames // _STRIDE),
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        initializer_range=config.initializer_range,
        pad_token_id=0,
    )
