"""The ablations "bound" and "feature kinds" as commands, from motion files to answers."""

import json

import numpy as np
import pytest
import soundfile
from transformers import AutoModel, GPT2Config, GPT2LMHeadModel

from solami_hf import cli
from solami_hf.demo.tiny_model import train_tokenizer
from solami_hf.generation import DialogueSession, SolamiPipeline
from solami_hf.generation.serving.vllm_grammar import answer_regex
from solami_hf.generation.streaming import MotionPiece
from solami_hf.generation.streaming_media import FacePieces, MotionPieces, lips_of
from solami_hf.hub_cards.card_facts import _motion_codec
from solami_hf.hub_cards.doctor_checks import check_template
from solami_hf.processing.datasets.batch_rendering import render_chat_batch
from solami_hf.processing.datasets.results import read_results
from solami_hf.processing.datasets.tasks import chat_messages
from solami_hf.processing.datasets.token_dataset import load_tokens
from solami_hf.processing.motion.face import UNIT_INDEX
from solami_hf.processing.motion.motion_io import read_motion, write_motion
from solami_hf.processing.motion.smplx_motion import SmplxMotion, resample_motion
from solami_hf.processing.processing_solami import SolamiProcessor
from solami_hf.processing.rendering import TokenRenderer

SIZES = {"width": 16, "code_dim": 8, "depth": 1, "code_num": 8, "transform_code_num": 4, "window": 16}


@pytest.fixture
def source(tmp_path, small_sound):
    """`motions/` and `chats/`, each with a manifest."""
    splits = ("train", "train", "test")
    for name in ("motions", "chats"):
        (tmp_path / name).mkdir()
        for i, frames in enumerate((33, 70, 40)):
            angles = 0.5 * np.sin(0.1 * (i + 1) * np.arange(frames)[:, None] + np.arange(55))
            poses = angles[..., None] * np.array([0.0, 0.0, 1.0])
            write_motion(tmp_path / name / f"{i}.npz", SmplxMotion(np.tile([0, 0.9, 0], (frames, 1)), poses))
    motions = [{"id": f"m{i}", "motion": f"{i}.npz", "text": ["waves"], "split": s} for i, s in enumerate(splits)]
    soundfile.write(tmp_path / "chats" / "a.wav", small_sound, 16000)
    turns = [{"role": role, "text": "hi", "audio": "a.wav", "motion": "0.npz"} for role in ("user", "assistant")]
    chats = [{"id": "c", "topic": "t", "character": "", "turns": turns * 2}]
    for name, rows in (("motions", motions), ("chats", chats)):
        (tmp_path / name / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def train_codec(source, output, *flags):
    command = ["train-motion-vq", "--data", str(source / "motions"), "--output_dir", str(source / output), *flags]
    command += [word for name, size in SIZES.items() for word in (f"--{name}", str(size))]
    command += ["--max_steps", "4", "--per_device_train_batch_size", "4", "--logging_steps", "1", "--use_cpu", "true"]
    assert cli.main([*command, "--report_to", "none", "--disable_tqdm", "true"]) == 0
    return AutoModel.from_pretrained(source / output)


@pytest.mark.parametrize(
    ("representation", "bound"), [("global_rotation", False), ("joints", False), ("joints", True)]
)
def test_feature_kinds_are_a_flag(source, representation, bound):
    model = train_codec(source, "codec", "--representation", representation, "--bound", str(bound))
    assert (model.config.representation, model.config.bound) == (representation, bound)
    assert model.body.quantizer.initialised and model.mean.shape == (171 if representation == "joints" else 315,)
    assert model.std[3:].min() >= (0.02 * 0.25 if representation == "joints" else 0.02) - 1e-6
    history = json.loads((source / "codec" / "history.json").read_text())
    assert history["evaluation"]["eval_mpjpe"] > 0 and "eval_body_perplexity" in history["evaluation"]
    assert ("eval_hand_perplexity" in history["evaluation"]) != bound
    assert any("hand_usage" in row for row in history["log"]) != bound
    assert "Feature" in (source / "codec" / "report.html").read_text()
    facts = _motion_codec(source / "codec", None)
    assert [row[1] for row in facts["modalities"]] == ["body", *([] if bound else ["hand"]), "place and facing"]


@pytest.mark.parametrize("interleaved", [False, True])
def test_bound_from_motion_files_to_answers(source, tiny_tokenizer, tiny_codecs, interleaved):
    codec = train_codec(source, "codec", "--bound", "true")
    assert codec.hand is None
    backbone = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tiny_tokenizer), n_positions=512, n_embd=16, n_layer=2, n_head=2)
    )
    for part, name in ((backbone, "base"), (tiny_tokenizer, "base"), (tiny_codecs[1], "speech")):
        part.save_pretrained(source / name)
    folder, tokens = str(source / "model"), source / "tokens"
    init = ["init", str(source / "base"), "--motion_codec", str(source / "codec"), "--output", folder]
    init += ["--speech_codec", str(source / "speech"), "--answer_format", "text_motion_speech"]
    assert cli.main([*init, *(["--interleaved"] if interleaved else [])]) == 0
    for kind, data in (("motion", "motions"), ("chat", "chats")):
        prepare = ["prepare", kind, str(source / data), "--processor", folder, "--output", str(tokens)]
        assert cli.main(prepare) == 0
    processor = SolamiProcessor.from_pretrained(folder)
    assert set(processor.modalities) == {"speech", "body", "trans"} and processor.modalities["body"]["size"] == 8
    row = load_tokens(tokens, "motion", "train", processor)[0]
    assert len(row["body"]) == 8 and not row["hand"] and len(row["trans"]) == 1

    chat = load_tokens(tokens, "chat", "train", processor)
    renderer = TokenRenderer(processor.tokenizer, processor)
    messages = chat_messages(chat[0], "text_motion_speech")
    rendered, counts = render_chat_batch(chat.with_format("arrow")[:], renderer, "text_motion_speech")
    assert counts.rendered == 1 and counts.rejected == 0
    assert rendered["input_ids"][0].as_py() == renderer.chat(messages)["input_ids"].tolist()
    assert list(check_template(source / "model")) == []

    quick = ["--max_length", "500", "--max_steps", "2", "--use_cpu", "true", "--bf16", "false", "--report_to", "none"]
    quick += ["--data", str(tokens), "--per_device_train_batch_size", "1", "--logging_steps", "1"]
    assert cli.main(["pretrain", "--model", folder, "--output_dir", str(source / "pretrained"), *quick]) == 0
    assert cli.main(["sft", "--model", str(source / "pretrained"), "--output_dir", str(source / "sft"), *quick]) == 0
    plan = ["pretrain", "--model", folder, *quick, "--output_dir", "x", "--plan", "--plan_hardware", "cpu-2core"]
    assert cli.main(plan) == 0
    history = json.loads((source / "sft" / "history.json").read_text())
    assert any("loss_body" in row for row in history) and not any("loss_hand" in row for row in history)

    pipeline = SolamiPipeline.from_pretrained(source / "sft", max_new_tokens=120)
    events = list(DialogueSession(pipeline).stream("hi"))
    answer = events[-1].reply.answer
    assert events[-1].reply.valid and len(answer.body) and not len(answer.hand) and len(answer.speech)
    moved = [event.motion.num_frames for event in events if isinstance(event, MotionPiece)]
    assert sum(moved) == 4 * len(answer.body) == events[-1].reply.motion.num_frames
    session = DialogueSession(pipeline)
    first = session.answer("hi")
    assert first.valid and session.answer("and again").valid and first.motion.num_frames == 4 * len(first.answer.body)

    (source / "lines.txt").write_text("waves\nbows\n")
    generate = ["generate", "--checkpoint", str(source / "sft"), "--task", "t2m", "--max_new_tokens", "60"]
    assert cli.main([*generate, "--input", str(source / "lines.txt"), "--output", str(source / "out")]) == 0
    rows, _ = read_results(source / "out")
    assert all(r["valid"] and r["body"] and not r["hand"] and r["motion"] for r in rows)
    assert all(r["first_motion_seconds"] is not None for r in rows)
    if not interleaved:
        assert "soha" not in answer_regex(pipeline.model.config) and "sobo" in answer_regex(pipeline.model.config)


def test_sixty_frames_a_second_keep_the_rate_of_codes(source, tiny_codecs):
    codec = train_codec(source, "codec", "--fps", "60", "--down_t", "3").eval()
    assert (codec.config.fps, codec.config.frames_per_code, codec.config.frame_rate) == (60, 8, 7.5)
    processor = SolamiProcessor(train_tokenizer(["wave"], vocab_size=300), codec, tiny_codecs[1])
    motion = read_motion(source / "motions" / "1.npz")  # 70 frames at 30 fps, 139 at 60, whose last only ends a step
    codes = processor.encode_motion([motion])[0]
    assert len(codes["body"]) == len(codes["hand"]) == 138 // 8
    with pytest.raises(ValueError, match="at least 9 frames and at most 120 s, got 7 frames at 60 fps"):
        processor.encode_motion([SmplxMotion(motion.transl[:4], motion.poses[:4])])
    back, pieces = processor.decode_motion(codes), MotionPieces(codec)
    streamed = [pieces.push(codes["body"][i : i + 3], codes["hand"][i : i + 3]) for i in range(0, 17, 3)]
    streamed = [piece for piece in (*streamed, pieces.finish()) if piece is not None]
    assert {piece.fps for piece in (back, *streamed)} == {60}
    assert back.num_frames == sum(piece.num_frames for piece in streamed) == 136
    faces = []
    for shown in (back, resample_motion(back, 30)):
        looks = FacePieces(processor, lips_of(processor))
        looks._expression.target = np.array([2.0, 1.5, 2.0])
        faces.append(looks.whole(shown)[1])
    assert faces[0].shape == faces[1].shape == (68, 52)
    left = faces[1][:, UNIT_INDEX["eyeLookOutLeft"]]  # eyes go first, then the head follows, at the same time in both
    assert left[0] > left[40] + 0.2 and np.abs(faces[0] - faces[1]).max() < 0.1


def test_what_was_not_made_for_a_bound_codec_is_refused(tiny_processor, tiny_tokenizer, tiny_codecs):
    config = tiny_codecs[0].config.to_dict() | {"bound": True}
    bound = type(tiny_codecs[0])(type(tiny_codecs[0].config)(**config)).eval()
    with pytest.raises(ValueError, match="codec is bound, but the tokenizer has body tokens and has hand tokens"):
        SolamiProcessor(tiny_processor.tokenizer, bound, tiny_codecs[1])
    processor = SolamiProcessor(train_tokenizer(["wave"], vocab_size=300), bound, tiny_codecs[1])
    assert "hand" not in processor.modalities
    with pytest.raises(ValueError, match="codec is not bound, but the tokenizer has body tokens and lacks hand"):
        SolamiProcessor(processor.tokenizer, *tiny_codecs)
    with pytest.raises(ValueError, match="needs body codes alone"):
        processor.decode_motion({"body": [1, 2], "hand": [1, 2]})
    assert processor.decode_motion({"body": [1, 2], "hand": None}).num_frames == 8
    with pytest.raises(ValueError, match="equally many body and hand"):
        tiny_processor.decode_motion({"body": [1, 2]})
    renderer = TokenRenderer(processor.tokenizer, processor)
    with pytest.raises(ValueError, match="hand codes have no tokens here"):
        renderer.codes("hand", [1])
    with_hand = [processor.markers["sobo"], processor.modalities["body"]["first_id"], processor.markers["eobo"]]
    with_hand += [processor.markers["soha"], processor.markers["eoha"], processor.markers["sosp"]]
    with_hand += [processor.modalities["speech"]["first_id"], processor.markers["eosp"], processor.markers["eos"]]
    assert not processor.parse_response(with_hand).valid
    assert processor.parse_response([i for i in with_hand if i not in with_hand[3:5]]).valid
