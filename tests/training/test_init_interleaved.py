"""The ablation "interleaved or not" on GPT-2: one flag of `solami init`, and rendering and answers follow."""

from transformers import GPT2Config, GPT2LMHeadModel

from solami_hf import cli
from solami_hf.generation import DialogueSession, SolamiPipeline
from solami_hf.processing.datasets.token_dataset import fingerprints, write_token_dataset
from solami_hf.processing.rendering import TokenRenderer
from solami_hf.training.pretrain import PretrainArguments, load_sources


def test_init_interleaved(tmp_path, tiny_tokenizer, tiny_codecs):
    backbone = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tiny_tokenizer), n_positions=512, n_embd=16, n_layer=2, n_head=2)
    )
    for part, name in zip((backbone, tiny_tokenizer, *tiny_codecs), ("base", "base", "motion", "speech"), strict=True):
        part.save_pretrained(tmp_path / name)
    command = ["init", str(tmp_path / "base"), "--motion_codec", str(tmp_path / "motion"), "--interleaved"]
    command += ["--hearing", "both"]
    assert cli.main([*command, "--speech_codec", str(tmp_path / "speech"), "--output", str(tmp_path / "model")]) == 0

    pipeline = SolamiPipeline.from_pretrained(tmp_path / "model", max_new_tokens=100)
    processor = pipeline.processor
    assert processor.hearing == pipeline.model.config.hearing == "both"
    assert processor.interleaved and pipeline.model.config.interleaved and pipeline.grammar().interleaved
    *_, end = DialogueSession(pipeline).stream("hi")
    assert (
        end.reply.valid
        and processor.parse_response(pipeline.generate_ids([[{"role": "user", "content": "x"}]])[0]).valid
    )

    motion = {
        "id": "a",
        "text": ["wave"],
        "body": [1, 2, 3, 4],
        "hand": [5, 6, 7, 8],
        "trans": [0],
        "partner_id": None,
    }
    rows = {"train": [{**motion, "num_frames": 17, "source": "a"}]}
    write_token_dataset(tmp_path / "tokens", "motion", rows, fingerprints(processor, "motion"))
    args = PretrainArguments(model=str(tmp_path / "model"), data=str(tmp_path / "tokens"))
    _, renderer = load_sources(args, processor, "train", 512)
    assert isinstance(renderer, TokenRenderer) and renderer.chunks is not None
