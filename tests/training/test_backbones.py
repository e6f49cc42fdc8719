"""Backbones of other architectures, from `solami init` through both stages, LoRA and merging to an answer."""

import json

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from solami_hf import cli
from solami_hf.generation import SolamiPipeline
from solami_hf.modeling.solami.backbones import extend_backbone
from solami_hf.modeling.solami.modeling_solami import SolamiForCausalLM
from solami_hf.training.language_model.packed_mixture import PackedRowsCollator

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 512}


def gpt2(vocab_size):
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, n_positions=512, n_embd=16, n_layer=2, n_head=2))


def qwen3(vocab_size):
    """Two heads share keys and values, head and embedding are apart, and the vocabulary has room to spare."""
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=vocab_size + 5, tie_word_embeddings=False, **heads, **SIZES))


def smollm2(vocab_size):
    """A Llama as SmolLM2 has it: three heads share keys and values, and the embedding is the head."""
    sizes = {**SIZES, "hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, tie_word_embeddings=True, **sizes))


@pytest.mark.parametrize("make", [gpt2, qwen3, smollm2])
def test_init_pretrain_sft_merge_generate(make, tmp_path, tiny_tokenizer, tiny_codecs, options):
    old_rows = len(tiny_tokenizer)
    backbone = make(old_rows)
    for part, name in zip((backbone, tiny_tokenizer, *tiny_codecs), ("base", "base", "motion", "speech"), strict=True):
        part.save_pretrained(tmp_path / name)
    (tmp_path / "characters.json").write_text(json.dumps({"ada": {"name": "Ada", "system": "You are Ada."}}))
    start = ["init", str(tmp_path / "base"), "--answer_format", "text_motion_speech"]
    start += ["--characters", str(tmp_path / "characters.json"), "--output", str(tmp_path / "start")]
    codecs = ["--motion_codec", str(tmp_path / "motion"), "--speech_codec", str(tmp_path / "speech")]
    assert cli.main([*start, *codecs]) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "start").eval()
    assert type(model) is (SolamiForCausalLM if make is smollm2 else type(backbone))
    assert model.config.markers["pad"] == old_rows and model.config.speech_levels == 1
    ids = torch.arange(20)[None]
    assert torch.allclose(model(ids).logits[..., :old_rows], backbone.eval()(ids).logits[..., :old_rows], atol=1e-6)
    packed_rows_are_apart(model)

    lora = ["--use_peft", "--lora_target_modules", "all-linear"]
    assert cli.main(["pretrain", *options(tmp_path / "start", tmp_path / "pretrained")]) == 0
    assert cli.main(["sft", *options(tmp_path / "pretrained", tmp_path / "tuned", *lora)]) == 0
    assert cli.main(["merge", str(tmp_path / "tuned"), "--output", str(tmp_path / "merged")]) == 0
    pretrained, tuned, merged = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name).eval() for name in ("pretrained", "tuned", "merged")
    )
    assert type(merged) is type(model) and merged.config.modalities == model.config.modalities
    assert (merged.get_output_embeddings().weight is merged.get_input_embeddings().weight) == (make is not qwen3)
    assert torch.equal(merged(ids).logits, tuned(ids).logits)
    for first, then in ((model, pretrained), (pretrained, tuned)):
        changed = {n for n, p in then.named_parameters() if not torch.equal(p, first.get_parameter(n))}
        assert any("mlp" in name for name in changed) and any("attn" in name for name in changed), changed

    pipeline = SolamiPipeline.from_pretrained(tmp_path / "merged", max_new_tokens=24)
    codes = {"body": [1, 2], "hand": [3, 4], "trans": [5]}
    user = {"role": "user", "content": [{"type": "motion", "motion": codes}]}
    system = {"role": "system", "content": pipeline.processor.character_system("ada")}
    assert isinstance(pipeline.processor, type(AutoProcessor.from_pretrained(tmp_path / "merged")))
    both = pipeline.generate_ids([[system, user], [user]])
    alone = pipeline.generate_ids([[user]])[0]
    assert both[1][: len(alone)] == alone


def packed_rows_are_apart(model):
    """What packing relies on: documents of one row do not see one another, and count their own positions."""
    torch.manual_seed(0)
    documents = [torch.randint(0, model.config.vocab_size, (n,)).tolist() for n in (5, 7)]
    row = {"input_ids": sum(documents, []), "labels": sum(documents, []), "seq_lengths": [5, 7]}
    batch = PackedRowsCollator(0)([row])
    batch.pop("labels")
    together = model(**batch).logits[0]
    apart = torch.cat([model(torch.tensor([document])).logits[0] for document in documents])
    assert torch.allclose(together, apart, atol=1e-5)


def test_a_loaded_stock_model_keeps_its_logits(tmp_path):
    backbone = gpt2(50).eval()
    ids = torch.arange(10)[None]
    before = backbone(ids).logits
    model = extend_backbone(backbone, sizes={"speech": 32, "body": 16, "hand": 8, "trans": 4})
    assert model is backbone and torch.equal(model(ids).logits[..., :50], before)
    assert torch.allclose(model.transformer.wte.weight[50:], model.transformer.wte.weight[:50].mean(0), atol=1e-6)
    assert model.config.fps == 30.0 and model.generation_config.eos_token_id == model.config.markers["eos"]


def test_a_folder_without_the_tokens_is_refused(tmp_path, tiny_processor, options, capsys):
    gpt2(50).save_pretrained(tmp_path / "plain")
    tiny_processor.save_pretrained(tmp_path / "plain")
    assert cli.main(["sft", *options(tmp_path / "plain", tmp_path / "out")]) == 2
    assert "(gpt2) has no modality tokens; make a folder that has them with `solami init`" in capsys.readouterr().err


def test_it_speaks_with_the_packaged_codec(tmp_path, tiny_tokenizer, tiny_codecs, capsys):
    for part, name in ((gpt2(len(tiny_tokenizer)), "base"), (tiny_tokenizer, "base"), (tiny_codecs[0], "motion")):
        part.save_pretrained(tmp_path / name)
    start = ["init", str(tmp_path / "base"), "--motion_codec", str(tmp_path / "motion")]
    assert cli.main([*start, "--output", str(tmp_path / "start")]) == 0
    processor = AutoProcessor.from_pretrained(tmp_path / "start")
    assert processor.modalities["speech"]["size"] == 1024 and "heart" in processor.voices.names
    wave = processor.decode_speech(list(range(20)), voice="heart")
    assert wave.shape == (6400,)
    assert cli.main([*start, "--speech_levels", "2", "--output", str(tmp_path / "other")]) == 2
    assert "speech_levels belong to a speech codec" in capsys.readouterr().err


def test_bad_starts(tmp_path, tiny_codecs, capsys):
    tiny_codecs[0].save_pretrained(tmp_path / "motion")
    (tmp_path / "bad.json").write_text('{"ada": {"name": "Ada"}}')

    def said(**changed):
        paths = {"motion_codec": tmp_path / "motion", "speech_codec": tmp_path, "output": tmp_path / "out", **changed}
        given = [word for name, value in paths.items() for word in (f"--{name}", str(value))]
        assert cli.main(["init", str(tmp_path / "motion"), *given]) == 2
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))
        return capsys.readouterr().err

    assert f"no such motion_codec folder: {tmp_path}/gone" in said(motion_codec=tmp_path / "gone")
    assert "must map ids to characters" in said(characters=tmp_path / "bad.json")
    assert "is there already; name another output" in said(output=tmp_path / "motion")


ROLES = "{'user': 'wave', 'assistant': 'hand'}"
TURNS = f"{{% for m in messages %}}{{{{ {ROLES}[m.role] ~ ' bow' }}}}{{{{ m.content }}}}what{{% endfor %}}"


@pytest.mark.parametrize("template", [TURNS, "{{ messages[-1].content }}", "{{ raise_exception('system first') }}"])
def test_role_markers_begin_as_the_backbone_writes_its_turns(tiny_tokenizer, template):
    """A template that cannot be asked, or forgets earlier turns, leaves them as they are."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tiny_tokenizer.chat_template = template
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tiny_tokenizer), tie_word_embeddings=True, **sizes))
    old = model.get_input_embeddings().weight.detach().clone()
    first, *user = tiny_tokenizer("whatwave bow")["input_ids"]
    _, *answer = tiny_tokenizer("whathand bow")["input_ids"]
    extended = extend_backbone(model, tiny_tokenizer, sizes={"body": 4, "hand": 4, "trans": 4, "speech": 8})
    rows, markers = extended.get_input_embeddings().weight, extended.config.markers
    mean = old.mean(0)
    expected = {"eos": old[first], "eoh": old[first], "human": old[user].mean(0), "mmgpt": old[answer].mean(0)}
    for name, row in expected.items():
        torch.testing.assert_close(rows[markers[name]], row if template == TURNS else mean)
