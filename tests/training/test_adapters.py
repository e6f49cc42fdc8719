"""What is trained when not all is: LoRA, quantised or halved frozen weights, rows of new tokens; `solami merge`."""

import json
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from solami_hf import cli
from solami_hf.modeling.solami.backbones import extend_backbone
from solami_hf.training import sft
from solami_hf.training.language_model import language_model_training
from solami_hf.training.language_model.adapters import add_adapters, load_merged, new_token_ids
from solami_hf.training.language_model.language_model_training import load_model_and_processor
from solami_hf.training.sft import SftArguments

SIZES = {"speech": 8, "body": 4, "hand": 4, "trans": 2}


def weights(folder):
    return load_file(folder / "model.safetensors")


def changed(before, after):
    """Names of what differs in any bit, and the rows that do of the embedding."""
    names = {name for name in before if not torch.equal(before[name], after[name])}
    name = "model.embed_tokens.weight"
    return names, set((before[name] != after[name]).any(1).nonzero()[:, 0].tolist())


def test_a_tied_model_stays_tied(start, tmp_path, options):
    config = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(json.dumps({**config, "use_cache": False}))  # of a training elsewhere
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sft.main(options(start, tmp_path / "lora", "--use_peft"))
    assert not [warning for warning in said if "tied" in str(warning.message)]
    names, rows = changed(weights(start), weights(tmp_path / "lora"))
    assert any("q_proj" in name for name in names) and not any("mlp" in name for name in names)
    assert len(rows) > 100  # weight decay alone moves every row
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "lora")
    assert model.config.use_cache and model.generation_config.use_cache is not False
    assert model.config.tie_word_embeddings and model.lm_head.weight is model.model.embed_tokens.weight
    again = load_merged(tmp_path / "lora" / "adapter")
    assert all(torch.equal(p, again.get_parameter(n)) for n, p in model.named_parameters())


def test_what_is_beside_lora_has_its_own_rate(start, tmp_path, options):
    moved = {}
    for rate in (None, 1e-12):
        more = ["--embedding_learning_rate", str(rate)] if rate else []
        folder = tmp_path / f"rate{rate}"
        sft.main(options(start, folder, "--use_peft", "--weight_decay", "0", *more))
        before, after = weights(start), weights(folder)
        moved[rate] = {name: float((after[name] - before[name]).abs().max()) for name in before}
    embedding, query = "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"
    assert moved[None][embedding] > 1e-4 and moved[1e-12][embedding] < 1e-9
    assert moved[1e-12][query] > 1e-6


@pytest.mark.parametrize("more", [[], ["--use_peft", "--lora_modules_to_save", "new_tokens"]])
def test_only_rows_of_new_tokens_change_also_when_resumed(start, tmp_path, options, more):
    more = more or ["--trainable", "new_tokens"]
    more += ["--weight_decay", "0.5", "--max_steps", "4"]
    sft.main(options(start, tmp_path / "rows", *more))
    after = weights(tmp_path / "rows")
    names, rows = changed(weights(start), after)
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "rows").config
    assert rows == set(new_token_ids(config))
    assert {name for name in names if "proj" not in name} == {"model.embed_tokens.weight"}
    assert any("proj" in name for name in names) == ("--use_peft" in more)
    shutil.rmtree(tmp_path / "rows" / "checkpoint-4")
    (tmp_path / "rows" / "history.json").unlink()
    sft.main(options(start, tmp_path / "rows", *more))
    again = weights(tmp_path / "rows")
    assert all(torch.allclose(again[name], after[name], atol=1e-6) for name in after)


def test_rows_of_a_head_that_is_no_embedding(tmp_path):
    config = Qwen3Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=False,
    )
    model = extend_backbone(Qwen3ForCausalLM(config), sizes=SIZES)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trained = add_adapters(model, SftArguments("m", "d", trainable="new_tokens"))
    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    ids = torch.arange(40, 60)[None]
    for _ in range(3):
        trained(ids, labels=ids).loss.backward()
        optimizer.step()
    after = trained.merge_and_unload().state_dict()
    assert {n for n in before if not torch.equal(before[n], after[n])} == {
        "model.embed_tokens.weight",
        "lm_head.weight",
    }
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(before[name][:50], after[name][:50]) and not torch.equal(before[name], after[name])


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_frozen_weights_in_half_precision(start, tmp_path, options, monkeypatch, capability):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    trained_in = []

    def note(model, args):
        trained_in.append((model.dtype, args.frozen_dtype))
        return add_adapters(model, args)

    monkeypatch.setattr(language_model_training, "add_adapters", note)
    with pytest.raises(ValueError, match="needs mixed precision; set bf16: true"):
        sft.main(options(start, tmp_path / "half", "--use_peft", "--frozen_dtype", "bfloat16"))
    sft.main(options(start, tmp_path / "half", "--use_peft", "--frozen_dtype", "bfloat16", "--bf16", "true"))
    # A CPU that computes bfloat16 in software trains in float32, frozen weights too
    wanted = (torch.bfloat16, "bfloat16") if capability == "AVX512" else (torch.float32, "float32")
    assert trained_in == [wanted]
    adapter = load_file(tmp_path / "half" / "adapter" / "adapter_model.safetensors")
    assert {weight.dtype for weight in adapter.values()} == {torch.float32}
    before, after = weights(start), weights(tmp_path / "half")
    names, _ = changed(before, after)
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    assert names and all("q_proj" in name or "v_proj" in name or "embed" in name for name in names)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_frozen_weights(start, tmp_path, options, bits):
    import bitsandbytes

    args = SftArguments(str(start), "d", use_peft=True, load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    kind = bitsandbytes.nn.Linear4bit if bits == 4 else bitsandbytes.nn.Linear8bitLt
    assert sum(isinstance(module, kind) for module in load_model_and_processor(args, None)[0].modules()) == 14
    more = ["--use_peft", f"--load_in_{bits}bit", "--lora_target_modules", "all-linear"]
    sft.main(options(start, tmp_path / "quantised", *more, "--lora_modules_to_save", "new_tokens"))
    before, after = weights(start), weights(tmp_path / "quantised")
    assert before.keys() == after.keys() and {weight.dtype for weight in after.values()} == {torch.float32}
    names, rows = changed(before, after)
    assert len([name for name in names if "proj" in name]) == 14
    assert rows <= set(new_token_ids(AutoModelForCausalLM.from_pretrained(start).config)) and rows


def test_layers_that_are_not_there():
    model = extend_backbone(GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=1)), sizes=SIZES)
    with pytest.raises(
        ValueError, match="called q_proj or v_proj; its linear layers are c_attn, c_fc, c_proj, lm_head"
    ):
        add_adapters(model, SftArguments("m", "d", use_peft=True))
    with pytest.raises(ValueError, match="lora_modules_to_save: no layer of this gpt2 is called norm"):
        add_adapters(model, SftArguments("m", "d", use_peft=True, lora_modules_to_save=["norm"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"use_peft": True, "trainable": "new_tokens"}, "exclude one another"),
        ({"trainable": "lora"}, "trainable is 'lora', expected all or new_tokens; LoRA is use_peft: true"),
        ({"load_in_4bit": True}, "weights that are not trained; set use_peft"),
        ({"frozen_dtype": "bfloat16"}, "weights that are not trained; set use_peft"),
        ({"embedding_learning_rate": 1e-4}, "embedding_learning_rate is 0.0001 and use_peft False"),
        ({"embedding_learning_rate": -1.0, "use_peft": True}, "embedding_learning_rate is -1.0 and"),
        ({"use_peft": True, "load_in_4bit": True, "load_in_8bit": True}, "exclude one another"),
        ({"lora_modules_to_save": ["none", "embeddings"]}, "give embeddings, new_tokens, none or names"),
        ({"lora_modules_to_save": ["new_tokens", "embeddings"]}, "give embeddings, new_tokens, none or names"),
    ],
)
def test_arguments_that_contradict_one_another(arguments, message):
    with pytest.raises(ValueError, match=message):
        SftArguments("m", "d", **arguments)
    assert SftArguments("m", "d", use_peft=True).trained == "lora" and SftArguments("m", "d").trained == "all"


def test_merging_a_checkpoint_and_what_cannot_be_merged(start, tmp_path, options, capsys):
    sft.main(options(start, tmp_path / "lora", "--use_peft"))

    def merge(adapter, *more, output="merged"):
        code = cli.main(["merge", str(adapter), "--output", str(tmp_path / output), *more])
        assert code == 0 or not list(tmp_path.glob(".*"))
        return code, capsys.readouterr().err

    code, _ = merge(tmp_path / "lora" / "checkpoint-2")
    assert code == 0
    own, merged = weights(tmp_path / "lora"), weights(tmp_path / "merged")
    assert all(torch.equal(own[name], merged[name]) for name in own)
    assert (tmp_path / "merged" / "README.md").is_file() and (tmp_path / "merged" / "processor_config.json").is_file()
    assert "is there already; name another output" in merge(tmp_path / "lora")[1]
    assert "there is no adapter in" in merge(start, output="x")[1]
    extend_backbone(GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=1))).save_pretrained(
        tmp_path / "other"
    )
    assert "error" in merge(tmp_path / "lora", "--base", str(tmp_path / "other"), output="x")[1]
    start.rename(tmp_path / "moved")
    code, said = merge(tmp_path / "lora", output="x")
    assert code == 2 and "was trained on" in said and "say where it is with --base" in said
    assert merge(tmp_path / "lora", "--base", str(tmp_path / "moved"), output="x")[0] == 0


def test_an_adapter_finds_its_base_from_any_folder(start, tmp_path, monkeypatch):
    monkeypatch.chdir(start.parent)
    args = SftArguments(start.name, "d", use_peft=True)
    model = add_adapters(AutoModelForCausalLM.from_pretrained(start.name), args)
    model.save_pretrained(tmp_path / "adapter")
    monkeypatch.chdir("/")
    assert load_merged(tmp_path / "adapter").config.model_type == "solami"


def test_a_checkpoint_of_a_stopped_run_keeps_the_runs_answer_format(start, tmp_path, options, monkeypatch):
    """Its folder has no processor yet; the base's writes a text first."""

    def stop(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("solami_hf.training.language_model.language_model_training.save_complete", stop)
    with pytest.raises(KeyboardInterrupt):
        sft.main(
            options(
                start, tmp_path / "lora", "--use_peft", "--answer_format", "motion_speech", "--hearing", "transcript"
            )
        )
    assert cli.main(["merge", str(tmp_path / "lora" / "checkpoint-2"), "--output", str(tmp_path / "merged")]) == 0
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").config
    assert config.hearing == "transcript" == AutoProcessor.from_pretrained(tmp_path / "merged").hearing
    assert config.answer_format == "motion_speech" != AutoModelForCausalLM.from_pretrained(start).config.answer_format
