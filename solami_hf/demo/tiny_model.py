"""The demo's starting point: a BPE tokenizer of its texts and a small random Llama, with the modality tokens."""

from pathlib import Path

import torch

from ..modeling.solami.modeling_solami import SolamiForCausalLM
from ..processing.audio.packaged_speech import packaged_speech
from ..processing.datasets.manifests import read_manifest
from ..processing.datasets.tasks import phrasings
from ..processing.files.atomic_write import follow_umask
from ..processing.processing_solami import SolamiProcessor
from ..processing.rendering import TASKS
from .corpus.dialogues import Character

ANSWER_FORMAT = "text_motion_speech"
VOICE = "heart"  # who speaks the corpus
SIZES = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}


def train_tokenizer(texts: list[str], vocab_size: int = 800):
    """A byte-level BPE tokenizer of `texts` as a `PreTrainedTokenizerFast`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def corpus_texts(corpus: Path, characters: list[Character]) -> list[str]:
    """All training texts: instructions, system prompts, captions and spoken lines."""
    texts = [text for task in TASKS for text in phrasings(task)] + [c.system for c in characters]
    for row in read_manifest(corpus / "motion"):
        texts += row["text"] if row["split"] == "train" else []
    for row in read_manifest(corpus / "speech"):
        texts += [turn["text"] for turn in row["turns"]] if row["split"] == "train" else []
    return texts


def write_base(output: str | Path, corpus: str | Path, motion_codec, characters, seed: int) -> None:
    """Writes a complete folder: random tiny Llama extended by `from_backbone`, tokenizer, codecs and characters. The
    speech codec, the acoustic model and the voices are those that the package carries."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_tokenizer(corpus_texts(Path(corpus), characters))
    processor = SolamiProcessor(
        tokenizer,
        motion_codec=motion_codec,
        characters={c.id: {"name": c.name, "system": c.system, "voice": VOICE} for c in characters},
        answer_format=ANSWER_FORMAT,
        **packaged_speech(),
    )
    torch.manual_seed(seed)
    # All rows at random: mean rows suit a trained backbone, but here they would all begin alike.
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=2048, tie_word_embeddings=True, **SIZES)
    sizes = {name: span["size"] for name, span in processor.modalities.items()}
    layout = {"sizes": sizes, "speech_codec": processor.speech_codec, "answer_format": ANSWER_FORMAT}
    model = SolamiForCausalLM.from_backbone(LlamaForCausalLM(config), tokenizer, **layout)
    model.save_pretrained(output)
    processor.save_pretrained(output)
    follow_umask(output)
