"""A language model on ONNX Runtime: the logits, sessions and answers of the model that it was converted from."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicSlidingWindowLayer

from solami_hf.generation import DialogueSession, SolamiPipeline
from solami_hf.generation.cache import CACHE
from solami_hf.generation.folder.generate import GenerateArguments, generate
from solami_hf.generation.serving.onnx_engine import OnnxLanguageModel, export_onnx, onnx_model
from solami_hf.modeling.solami.modeling_solami import SolamiForCausalLM
from solami_hf.processing.datasets.results import read_results

pytest.importorskip("onnxruntime_genai")
USER = [{"type": "text", "text": "please wave"}]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where models of these tests are converted, once."""
    return tmp_path_factory.mktemp("converted")


@pytest.fixture
def model(tiny_processor):
    """Random weights that are large enough for answers to depend on what was read."""
    config = LlamaConfig(
        vocab_size=tiny_processor.markers["pad"], hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
    )  # fmt: skip
    sizes = {name: span["size"] for name, span in tiny_processor.modalities.items()}
    model = SolamiForCausalLM.from_backbone(
        LlamaForCausalLM(config), tiny_processor.tokenizer, sizes=sizes, answer_format="text_motion_speech"
    )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.3)
    return model.eval()


@pytest.fixture
def both(model, tiny_processor, kept):
    """The pipeline, and the same on ONNX Runtime with float32 weights."""
    converted = onnx_model(model, tiny_processor.tokenizer, "fp32", kept)
    return [SolamiPipeline(each, tiny_processor, max_new_tokens=40, face=False) for each in (model, converted)]


@pytest.mark.parametrize("lengths", [(600,), (40, 1, 1, 1), (3, 500, 1, 120, 1)])
def test_logits_and_states_are_those_of_the_model(both, lengths):
    ours, ids = (pipeline.model for pipeline in both), torch.randint(0, 300, (1, sum(lengths)))
    theirs, converted = ours
    caches, begin = (DynamicCache(), DynamicCache()), 0
    for length in lengths:
        part, begin = ids[:, begin : begin + length], begin + length
        with torch.inference_mode():
            expected, got = (
                each(part, **{CACHE: cache}) for each, cache in zip((theirs, converted), caches, strict=True)
            )
        assert got.logits.shape == (1, 1, theirs.config.vocab_size)
        assert torch.allclose(got.logits[0, 0], expected.logits[0, -1], atol=1e-3)
    for expected, got in zip(*(cache.layers for cache in caches), strict=True):
        assert got.keys.shape == expected.keys.shape
        assert torch.allclose(got.keys, expected.keys, atol=1e-3)
        assert torch.allclose(got.values, expected.values, atol=1e-3)


def test_a_conversation_is_the_same_in_every_way_it_can_go_on(both, tmp_path):
    def talk(pipeline):
        session = DialogueSession(pipeline, character="ada")
        said = [session.answer(USER, decode=False) for _ in range(3)]
        other = session.fork()
        said += [other.answer("and you?", decode=False), session.answer("who are you?", decode=False)]
        assert session.truncate_answer(0.3)
        said.append(session.answer(USER, decode=False))
        session.save(tmp_path / "kept", cache=True)
        restored = DialogueSession.load(tmp_path / "kept", pipeline)
        said.append(restored.answer(USER, decode=False))
        read = session.prefilled_tokens, restored.prefilled_tokens
        with_sampling = session.answer(USER, decode=False, do_sample=True, top_k=5)
        return read, [(reply.text, reply.valid, reply.answer) for reply in (*said, with_sampling)]

    (read, expected), (read_too, got) = map(talk, both)
    assert read == read_too
    assert all(valid for _, valid, _ in got[:-1])
    for (text, _, answer), (text_too, _, answer_too) in zip(expected[:-1], got[:-1], strict=True):
        assert text == text_too
        for name in ("body", "hand", "speech"):
            assert list(getattr(answer, name)) == list(getattr(answer_too, name))


def test_a_stream_says_what_an_answer_says(both):
    _, pipeline = both
    whole = DialogueSession(pipeline, character="ada").answer(USER)
    *_, end = DialogueSession(pipeline, character="ada").stream(USER)
    assert end.reply.valid and end.reply.text == whole.text
    assert list(end.reply.answer.speech) == list(whole.answer.speech)


def test_several_conversations_are_answered_in_turn(both):
    conversations = [[{"role": "user", "content": text}] for text in ("hi", "please wave your hand")]
    expected, got = (pipeline.respond(conversations, decode=False) for pipeline in both)
    assert [reply.text for reply in got] == [reply.text for reply in expected]
    assert [list(reply.answer.body) for reply in got] == [list(reply.answer.body) for reply in expected]
    assert [pipeline.takes_batches for pipeline in both] == [True, False]


def test_a_folder_is_answered_in_turn_by_each_answers_own_clock(both, dialogues, tmp_path):
    rows = []
    for number, pipeline in enumerate(both):
        output, settings = tmp_path / str(number), {"max_new_tokens": 40, "media": False, "batch_size": 8}
        generate(GenerateArguments("x", task="chat", input=str(dialogues), output=str(output), **settings), pipeline)
        rows.append(sorted(read_results(output)[0], key=lambda row: (row["id"], row["round"])))
    assert [(row["text"], row["body"]) for row in rows[1]] == [(row["text"], row["body"]) for row in rows[0]]
    times = [(row["first_token_seconds"], row["seconds"]) for row in rows[1] if row["valid"]]
    assert len(times) == len(set(times)) == 8 and all(0 < first < whole for first, whole in times)
    with pytest.raises(ValueError, match="leave --batching continuous out"):
        GenerateArguments("x", task="chat", input="a", output="b", engine="onnx", batching="continuous")


@pytest.mark.parametrize("settings", [{"num_beams": 2}, {"cache_implementation": "static"}])
def test_what_needs_rows_or_another_cache_is_refused_and_nothing_is_lost(both, settings):
    session = DialogueSession(both[1], character="ada")
    before = session.answer(USER, decode=False)
    with pytest.raises(ValueError, match="onnx"):
        session.answer(USER, decode=False, **settings)
    assert session.rounds == 1
    after = session.answer(USER, decode=False)
    fresh = DialogueSession(both[0], character="ada")
    assert fresh.answer(USER, decode=False).text == before.text
    assert fresh.answer(USER, decode=False).text == after.text


def test_a_padded_row_is_refused(both):
    with pytest.raises(ValueError, match="1 rows, or a padded one"):
        both[1].model(torch.tensor([[5, 6]]), attention_mask=torch.tensor([[0, 1]]))


def test_sliding_windows_are_refused(both):
    sliding = DynamicCache()
    sliding.layers = [DynamicSlidingWindowLayer(16), DynamicSlidingWindowLayer(16)]
    with pytest.raises(ValueError, match="full attention"):
        both[1].model(torch.tensor([[5, 6]]), **{CACHE: sliding})


def test_threads_do_not_meet(both):
    prompts = [[5 + i, 9, 7 * i + 3] for i in range(6)]
    expected = [both[1].generate_prompts([prompt]) for prompt in prompts]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda prompt: both[1].generate_prompts([prompt]), prompts)) == expected


def test_a_checkpoint_is_converted_once_with_8_bits(model, tiny_processor, tmp_path, monkeypatch):
    import solami_hf.generation.serving.onnx_engine as engine

    monkeypatch.setattr(engine, "HF_HOME", str(tmp_path / "home"))
    model.save_pretrained(tmp_path / "checkpoint")
    tiny_processor.save_pretrained(tmp_path / "checkpoint")
    first = SolamiPipeline.from_pretrained(tmp_path / "checkpoint", engine="onnx", max_new_tokens=40)
    assert isinstance(first.model, OnnxLanguageModel)
    (folder,) = (tmp_path / "home" / "solami_hf").iterdir()
    assert folder.name.startswith("onnx-int8-")
    monkeypatch.setattr(subprocess, "run", None)
    second = SolamiPipeline.from_pretrained(tmp_path / "checkpoint", engine="onnx", max_new_tokens=40)
    with torch.inference_mode():
        ids = torch.randint(0, 300, (1, 60))
        expected, got = model(ids).logits[0, -1], second.model(ids).logits[0, -1]
    assert 0 < (got - expected).abs().max() < 0.1 * expected.abs().max()
    assert torch.corrcoef(torch.stack([got, expected]))[0, 1] > 0.995
    reply = second([{"role": "user", "content": "hi"}], do_sample=False)
    assert reply.valid and reply.motion is not None


def test_an_adapter_is_merged(model, tiny_processor, tmp_path, kept, monkeypatch):
    model.save_pretrained(tmp_path / "base")
    tiny_processor.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(
        SolamiForCausalLM.from_pretrained(tmp_path / "base"), LoraConfig(target_modules="all-linear", r=2)
    )
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.3)
    adapted.save_pretrained(tmp_path / "adapter")
    tiny_processor.save_pretrained(tmp_path / "adapter")
    given = []
    monkeypatch.setattr("solami_hf.generation.pipeline.onnx_model", lambda model, tokenizer: given.append(model))
    with pytest.raises(AttributeError):  # nothing is converted here
        SolamiPipeline.from_pretrained(tmp_path / "adapter", engine="onnx", base=str(tmp_path / "base"))
    (merged,) = given
    assert merged.state_dict().keys() == model.state_dict().keys()
    ids = torch.randint(0, 300, (1, 20))
    with torch.inference_mode():
        assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-3)
        assert not torch.allclose(merged(ids).logits, model(ids).logits, atol=1e-1)


def test_bad_settings_are_told(model, tiny_processor, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="engine is 'tensorrt', expected onnx or None"):
        SolamiPipeline.from_pretrained(tmp_path, engine="tensorrt")
    with pytest.raises(ValueError, match="leave quantization and device_map"):
        SolamiPipeline.from_pretrained(tmp_path, engine="onnx", quantization="int8")
    with pytest.raises(ValueError, match="precision is 'int3', expected one of int8, int4, fp32"):
        export_onnx(model, tiny_processor.tokenizer, tmp_path / "out", "int3")
    monkeypatch.setattr("solami_hf.generation.serving.onnx_engine.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"engine='onnx' needs onnxruntime and .*pip install 'solami_hf\[onnx\]'"):
        onnx_model(model, tiny_processor.tokenizer)


def test_a_model_that_cannot_be_converted_leaves_no_folder(model, tiny_processor, tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nNotImplementedError: no such model\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(ValueError, match="SolamiForCausalLM cannot be converted.* says: NotImplementedError: no such"):
        export_onnx(model, tiny_processor.tokenizer, tmp_path / "out")
    assert not any(tmp_path.iterdir())
