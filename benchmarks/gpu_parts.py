"""Parts of `gpu.py`: `equality`, `decoding`, `streaming`, `speech` and `motion`."""

import copy
import time
from importlib.util import find_spec
from tempfile import TemporaryDirectory

import data as data_benchmark
import generation
import generation_streaming
import motion as motion_benchmark
import numpy as np
import speech_codec
import torch
import training
from gpu_rows import LLAMAS, Setup, config_of, measure, seconds_of, show, skip
from transformers import AutoModelForCausalLM
from trl import pack_dataset

from solami_hf.demo.corpus.dialogues import load_dialogues
from solami_hf.demo.tiny_model import train_tokenizer
from solami_hf.generation import AnswerEnd, AnswerGrammar, AudioPiece, DialogueSession, MotionPiece, SolamiPipeline
from solami_hf.modeling.motion_vq.configuration_motion_vq import SolamiMotionVQConfig
from solami_hf.modeling.motion_vq.modeling_motion_vq import SolamiMotionVQModel
from solami_hf.modeling.solami.backbones import convert_lm_to_llama
from solami_hf.modeling.solami.configuration_solami import SolamiConfig
from solami_hf.modeling.solami.vocabulary_rows import add_modality_tokens
from solami_hf.modeling.soundstorm.configuration_soundstorm import SolamiSoundStormConfig
from solami_hf.modeling.soundstorm.modeling_soundstorm import SolamiSoundStormModel
from solami_hf.modeling.speech_codec.configuration_speech_codec import SolamiSpeechCodecConfig
from solami_hf.modeling.speech_codec.modeling_speech_codec import SolamiSpeechCodecModel
from solami_hf.processing.batching import MOTION_BATCH_FRAMES, map_in_batches, pad_right
from solami_hf.processing.motion.features import features_to_joints
from solami_hf.processing.processing_solami import SolamiProcessor
from solami_hf.training.language_model.chunked_loss import add_chunked_loss
from solami_hf.training.language_model.packed_mixture import PackedRowsCollator
from solami_hf.training.language_model.plan_costs import GIB

CLIPS, BATCH_FRAMES = 10_000, 65_536  # frames of a batch on a GPU
LONG, QUICK, SHORT = 4.0, 2.0, 1.2  # seconds of an answer, with --quick, and without a GPU
PROMPT = 400  # tokens that it is an answer to
GRAMMAR_STEPS = 60


def difference(values: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, as a share of the largest expected value."""
    return float((values.float().cpu() - expected.float()).abs().max() / expected.float().abs().max())


def equal(values: torch.Tensor, expected: torch.Tensor) -> float:
    """Share of equal numbers."""
    return float((values.cpu() == expected).float().mean())


# --- results of the GPU beside the CPU's ----------------------------------------------------------------------------


@torch.no_grad()
def equality(setup: Setup) -> None:
    """Float32 on the CPU beside float32 on the GPU and bfloat16 on either; the grammar beside itself."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if not setup.has_gpu:
        skip("equal_float32", "no GPU; bfloat16 on the CPU is compared instead")
    for name, function in (
        ("motion", equal_motion), ("codec", equal_codec), ("soundstorm", equal_soundstorm), ("training", equal_step),
        ("grammar", equal_grammar),
    ):  # fmt: skip
        measure(setup, f"equal_{name}", function, 5, setup)


def others(setup: Setup, model):
    """`(name, copy of the model)` for each way that is compared with float32 on the CPU."""
    for dtype in (torch.float32, torch.bfloat16):
        if setup.has_gpu or dtype != torch.float32:
            yield str(dtype).removeprefix("torch."), copy.deepcopy(model).to(setup.device, dtype)


def equal_motion(setup: Setup) -> None:
    """Codes and joints of some clips, at the paper's sizes."""
    clips = motion_benchmark.make_clips(4, np.random.default_rng(0))
    model = motion_benchmark.make_model(clips)
    values, mask = pad_right(clips)
    expected = model.encode(values, mask)
    joints = features_to_joints(
        model.decode(expected.body_codes, expected.hand_codes, expected.code_mask).motion_values
    )
    for name, other in others(setup, model):
        out = other.encode(values.to(setup.device), mask.to(setup.device))
        show(f"equal_motion_codes_{name}", equal(out.body_codes, expected.body_codes), "of the body's codes equal")
        args = (expected.body_codes, expected.hand_codes, expected.code_mask)
        decoded = features_to_joints(other.decode(*(a.to(setup.device) for a in args)).motion_values)
        off = (decoded.cpu() - joints).norm(dim=-1)[expected.code_mask.repeat_interleave(4, 1)[:, : joints.shape[1]]]
        show(f"equal_motion_joints_{name}", 1000 * off.mean(), "mm that joints are off on average")


def equal_codec(setup: Setup) -> None:
    """Codes and sound of the speech codec, at the original's sizes."""
    model, clip = speech_codec.make_codec(), speech_codec.make_clips()[0][None, None]
    codes = model.encode(clip).audio_codes
    sound = model.decode(codes).audio_values
    for name, other in others(setup, model):
        found = other.encode(clip.to(setup.device), num_quantizers=1).audio_codes
        show(f"equal_codec_codes_{name}", equal(found[:, 0], codes[:, 0]), "of level 0 equal")
        values = other.decode(codes.to(setup.device)).audio_values
        show(f"equal_codec_sound_{name}", difference(values, sound), "largest difference, of the peak")


def make_soundstorm(setup: Setup) -> SolamiSoundStormModel:
    """The paper's 351M random weights; two layers of them where there is no GPU."""
    torch.manual_seed(0)
    with torch.device(setup.device):
        return SolamiSoundStormModel(
            SolamiSoundStormConfig(**({} if setup.has_gpu else {"num_hidden_layers": 2}))
        ).eval()


def equal_soundstorm(setup: Setup) -> None:
    """Scores of one call, and all codes of an answer without chance: 1 s behind a prompt of 1 s."""
    model = make_soundstorm(setup).cpu()
    codes = torch.randint(model.config.codebook_size, (1, model.config.num_quantizers, 50))
    logits, filled = model(codes).logits, model.generate(codes[:, 0], codes)
    for name, other in others(setup, model):
        there = codes.to(setup.device)
        show(f"equal_soundstorm_logits_{name}", difference(other(there).logits, logits), "largest difference")
        show(f"equal_soundstorm_codes_{name}", equal(other.generate(there[:, 0], there), filled), "of all codes equal")


def equal_step(setup: Setup) -> None:
    """Loss and gradient's norm of a step on a packed row, with the loss in chunks."""
    _, tokenizer, _ = data_benchmark.make_tokenizers()
    samples = training.render(training.chat_rows(None), 1024)
    batch = PackedRowsCollator(0)(pack_dataset(samples, 1024, "bfd").to_list()[:1])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of("135m" if setup.has_gpu else "tiny"))
    add_chunked_loss(model)

    def step(model, device) -> tuple[float, float]:
        inputs = {name: value.to(device) if name != "use_cache" else value for name, value in batch.items()}
        with torch.enable_grad():
            loss = model(**inputs).loss
            loss.backward()
        return float(loss), float(torch.nn.utils.get_total_norm([w.grad.float() for w in model.parameters()]))

    compared = list(others(setup, model))
    expected = step(model, "cpu")
    for name, other in compared:
        for what, found, wanted in zip(("loss", "gradient"), step(other, setup.device), expected, strict=True):
            show(f"equal_training_{what}_{name}", abs(found - wanted) / wanted, "of it that it is off")


def equal_grammar(setup: Setup) -> None:
    """What the grammar forbids at each place of an answer."""
    config = make_pipeline(setup, "tiny", SHORT, generation.make_processor).model.config
    prompt = torch.tensor([[5, config.markers["mmgpt"]]])
    ways = [(AnswerGrammar(config, min_seconds=SHORT, max_seconds=SHORT), device) for device in ("cpu", setup.device)]
    rows, same, generator = prompt, [], torch.Generator().manual_seed(0)
    for _ in range(GRAMMAR_STEPS):
        scores = torch.randn(1, config.vocab_size, generator=generator)
        forbidden, other = (grammar(rows.to(device), scores.to(device)).isinf().cpu() for grammar, device in ways)
        same.append(torch.equal(forbidden, other))
        rows = torch.cat([rows, scores.masked_fill(forbidden, -torch.inf).argmax(-1, keepdim=True)], dim=1)
    show("equal_grammar", sum(same) / len(same), "of the steps forbid the same tokens")


# --- answers --------------------------------------------------------------------------------------------------------


def answer_seconds(setup: Setup) -> float:
    """How long an answer is."""
    return SHORT if not setup.has_gpu else QUICK if setup.quick else LONG


def make_pipeline(setup: Setup, size: str, seconds: float, make_processor) -> SolamiPipeline:
    """A pipeline of random weights whose answers all last so long; in bfloat16 on a GPU."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer([character.system for character in load_dialogues()])
    processor = make_processor(tokenizer)
    config = SolamiConfig(**LLAMAS[size], max_position_embeddings=4096)
    with torch.device(setup.device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if setup.has_gpu else torch.float32)
    add_modality_tokens(model, tokenizer)
    pipeline = SolamiPipeline(model, processor, max_new_tokens=generation.LONGEST)
    processor.place_codecs(setup.device)
    bounds = {"min_seconds": seconds, "max_seconds": seconds, "max_new_tokens": generation.LONGEST}
    grammar = AnswerGrammar(model.config, interleaved=processor.interleaved, **bounds)
    pipeline.grammar = lambda *args, **kwargs: grammar
    return pipeline


@torch.inference_mode()
def decoding(setup: Setup) -> None:
    """Tokens a second of one answer within the grammar."""
    sizes = ("135m", "7b") if setup.has_gpu else ("tiny",)
    ways = {
        "eager": {},
        "static": {"cache_implementation": "static", "disable_compile": True},
        "compiled": {"cache_implementation": "static"},
    }
    for size in sizes:
        try:
            pipeline = make_pipeline(setup, size, answer_seconds(setup), generation.make_processor)
        except torch.OutOfMemoryError:
            skip(f"decode_{size}", "out of memory")
            continue
        for way, options in ways.items():
            name = f"decode_{size}_{way}"
            if way == "compiled" and not setup.has_gpu:
                skip(name, "compiling takes minutes on a CPU")
            elif way == "compiled" and setup.quick and size != "135m":
                skip(name, "left out with --quick")
            else:
                measure(setup, name, decode, 30 if way == "compiled" else 8, pipeline, name, options)
        if size != "7b":
            needs = 50 if find_spec("vllm") else 0
            measure(setup, f"decode_{size}_vllm", decode_in_vllm, needs, pipeline, f"decode_{size}_vllm")
        del pipeline


def decode(pipeline: SolamiPipeline, name: str, options: dict) -> None:
    """The row of one way: tokens of an answer to a prompt of a few turns, over the seconds that it takes."""
    ids = torch.randint(5, 300, (1, PROMPT))
    ids[0, -1] = pipeline.model.config.markers["mmgpt"]
    said = []

    def answer():
        said[:] = pipeline.generate_padded(ids, torch.ones_like(ids), **options)[0]

    seconds = seconds_of(answer, 1)
    if not pipeline.processor.parse_response(said).valid:
        raise RuntimeError("an answer within the grammar is not valid")
    show(name, len(said) / seconds, "tokens/s, one sequence, the prompt's reading included")


def decode_in_vllm(pipeline: SolamiPipeline, name: str) -> None:
    """The same number of tokens by vLLM, without the grammar."""
    if find_spec("vllm") is None:
        skip(name, "vLLM is not installed")
        return
    from vllm import LLM, SamplingParams

    with TemporaryDirectory() as folder, TemporaryDirectory() as served:
        pipeline.model.save_pretrained(folder)
        convert_lm_to_llama(folder).save_pretrained(served)
        engine = LLM(served, skip_tokenizer_init=True, dtype="bfloat16", gpu_memory_utilization=0.4)
        tokens = int(LONG * 65)
        settings = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        prompt = {"prompt_token_ids": torch.randint(5, 300, (PROMPT,)).tolist()}
        seconds = seconds_of(lambda: engine.generate([prompt], settings, use_tqdm=False), 2)
    show(name, tokens / seconds, "tokens/s, one sequence, without the grammar")


def streaming(setup: Setup) -> None:
    """Seconds from a question to the first motion and sound, and to the end, of an interleaved answer."""
    sizes = (("7b",) if setup.quick else ("135m", "7b")) if setup.has_gpu else ("tiny",)
    for size in sizes:
        measure(setup, f"stream_{size}", stream, 15, setup, size)


def stream(setup: Setup, size: str) -> None:
    """The rows of one size: codecs of the paper's sizes, and SoundStorm before the speech codec's decoder."""

    def make_processor(tokenizer) -> SolamiProcessor:
        plain = generation_streaming.make_processor(tokenizer)
        acoustic = make_soundstorm(setup).to(torch.bfloat16 if setup.has_gpu else torch.float32)
        codecs = {"motion_codec": plain.motion_codec, "speech_codec": plain.speech_codec}
        return SolamiProcessor(tokenizer, **codecs, acoustic_model=acoustic, interleaved=True)

    pipeline = make_pipeline(setup, size, answer_seconds(setup), make_processor)
    session = DialogueSession(pipeline, system="You are Ada.")
    session.answer(generation.user_turn(), decode=False)
    generation_streaming.streamed(session.fork(), generation.user_turn())  # warm
    first, end = generation_streaming.streamed(session.fork(), generation.user_turn())
    if not end.reply.valid:
        raise RuntimeError(f"a streamed answer is not valid: {end.reply.answer.reason}")
    show(f"stream_{size}_first_motion", first[MotionPiece], "s from the question to the first frames")
    show(f"stream_{size}_first_audio", first[AudioPiece], "s from the question to the first sound")
    show(f"stream_{size}_real_time", end.start / first[AnswerEnd], "s of answer a second")


# --- speech and motion ----------------------------------------------------------------------------------------------


@torch.inference_mode()
def speech(setup: Setup) -> None:
    """Seconds of sound a second: SoundStorm, the codec's encoder and decoder."""
    measure(setup, "soundstorm", speech_soundstorm, 10, setup)
    measure(setup, "codec", speech_of_codec, 10, setup)


def speech_soundstorm(setup: Setup) -> None:
    """Ten seconds behind a prompt of three, alone and eight at once."""
    model, seconds = make_soundstorm(setup).to(torch.bfloat16), 10 if setup.has_gpu else 2
    config, frames = model.config, 50 * seconds
    for batch in (1, 8) if setup.has_gpu else (1,):
        semantic = torch.randint(config.num_semantic_codes, (batch, frames), device=setup.device)
        prompt = torch.randint(config.codebook_size, (batch, config.num_quantizers, 150), device=setup.device)
        taken = seconds_of(lambda s=semantic, p=prompt: model.generate(s, p))
        show(f"soundstorm_{batch}", batch * seconds / taken, f"s of sound a second, {batch} at once, bfloat16")


def speech_of_codec(setup: Setup) -> None:
    """A batch of clips to codes of level 0 and from all levels to sound, float32 and bfloat16."""
    plain = SolamiSpeechCodecModel(SolamiSpeechCodecConfig()).eval()
    batch, seconds = (32, 10) if setup.has_gpu else (2, 2)
    for dtype in (torch.float32, torch.bfloat16):
        model, name = plain.to(setup.device, dtype), str(dtype).removeprefix("torch.")
        values = 0.1 * torch.randn(batch, 1, 16_000 * seconds, device=setup.device)
        codes = torch.randint(1024, (batch, 8, 50 * seconds), device=setup.device)
        taken = seconds_of(lambda m=model, v=values: m.encode(v, num_quantizers=1))
        show(f"codec_encode_{name}", batch * seconds / taken, f"s of sound a second, {batch} at once")
        taken = seconds_of(lambda m=model, c=codes: m.decode(c))
        show(f"codec_decode_{name}", batch * seconds / taken, f"s of sound a second, {batch} at once")


@torch.inference_mode()
def motion(setup: Setup) -> None:
    """Clips to codes at the paper's sizes, in padded batches, float32 and bfloat16."""
    count = CLIPS if setup.has_gpu else 100
    some = motion_benchmark.make_clips(200 if setup.has_gpu else 50, np.random.default_rng(0))
    clips = [some[i % len(some)] for i in range(count)]
    plain = SolamiMotionVQModel(SolamiMotionVQConfig()).eval()
    frames = BATCH_FRAMES if setup.has_gpu else MOTION_BATCH_FRAMES
    for dtype in (torch.float32, torch.bfloat16):
        model, name = plain.to(setup.device, dtype), f"motion_encode_{str(dtype).removeprefix('torch.')}"
        measure(setup, name, encode_clips, 5, setup, model, clips, frames, name)


def encode_clips(setup: Setup, model: SolamiMotionVQModel, clips: list, frames: int, name: str) -> None:
    """The row of one precision; the codes end on the CPU."""

    def encode(batch: list[torch.Tensor]) -> list:
        values, mask = pad_right(batch)
        out = model.encode(values.to(setup.device), mask.to(setup.device))
        return list(torch.stack([out.body_codes, out.hand_codes], dim=1).cpu())

    begin = time.perf_counter()
    encode(clips[:64])  # warm
    warm = time.perf_counter() - begin
    begin = time.perf_counter()
    map_in_batches(clips, len, frames, encode, most_steps=frames)
    seconds = time.perf_counter() - begin
    show(name, len(clips) / seconds, f"clips/s, {len(clips)} clips in {seconds:.1f} s (the first call {warm:.1f} s)")
    if setup.has_gpu:
        show(f"{name}_peak_memory", torch.cuda.max_memory_allocated() / GIB, "GiB")
