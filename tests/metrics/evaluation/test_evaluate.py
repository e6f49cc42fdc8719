"""`solami evaluate` on small results: figures, sanity rows, controls, judge, cards, restarts, two processes."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest

from solami_hf.metrics import folder_of
from solami_hf.metrics import motion_math as mm
from solami_hf.metrics.evaluation import parts as parts_module
from solami_hf.metrics.evaluation.answer_pairs import Pair, Results
from solami_hf.metrics.evaluation.command import EvaluateArguments, main, run
from solami_hf.metrics.evaluation.figures import Figures
from solami_hf.metrics.evaluation.intervals import summarize
from solami_hf.metrics.evaluation.media import joints_of

_spec = importlib.util.spec_from_file_location("chat_server", Path(__file__).parents[2] / "chat_server.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)


def measured(kind, *folders, **options):
    output = run(EvaluateArguments(kind, [str(folder) for folder in folders], **options))
    return json.loads((output / "evaluation.json").read_text())["evaluations"]


def test_figures_are_those_of_the_metric_modules(t2m):
    (found,) = measured("pretrain", t2m)
    figures = found["views"]["answers"]
    first, second = Results(t2m).repetitions("given")
    for pairs, number in ((first, 0), (second, 1)):  # in the second repetition one answer is missing
        made, real = (
            [medium and joints_of(medium) for medium in (getattr(p, name) for p in pairs)]
            for name in ("motion", "reference_motion")
        )
        for module, names in (
            ("motion_fid", ["fid"]),
            ("motion_diversity", ["diversity"]),
            ("motion_mpjpe", ["mpjpe", "pa_mpjpe", "accel", "bone_angle"]),
            ("foot_skating", ["foot_skating", "penetration", "jitter"]),
        ):
            inputs = {"predictions": made} | ({} if module == "foot_skating" else {"references": real})
            expected = evaluate.load(folder_of(module)).compute(**inputs)
            for name in names:
                assert figures[name]["values"][number] == pytest.approx(expected[name], rel=1e-4), name
    expected = evaluate.load(folder_of("motion_fid")).compute(predictions=made, references=real, mode="upstream")
    assert figures["fid_upstream"]["values"][1] == pytest.approx(expected["fid"], rel=1e-3)
    assert figures["valid"]["values"] == [1.0, 0.875]
    assert figures["valid"]["count"] == 16 and figures["mpjpe"]["count"] == 15


def test_mean_deviation_interval_and_counts(t2m):
    (found,) = measured("pretrain", t2m)
    mpjpe = found["views"]["answers"]["mpjpe"]
    assert mpjpe["mean"] == pytest.approx(np.mean(mpjpe["values"])) and mpjpe["values"][1] > 1.5 * mpjpe["values"][0]
    assert mpjpe["std"] == pytest.approx(np.std(mpjpe["values"], ddof=1))
    assert mpjpe["low"] < mpjpe["mean"] < mpjpe["high"]
    assert found["counts"] == {
        "repetitions": 2, "answers": 16, "items": 8, "failed": 1, "unusable_inputs": 0, "failure_rate": 1 / 16,
    }  # fmt: skip
    assert found["latency"]["total"]["mean"] == pytest.approx(5.0) and found["batch_size"] == 4
    # 24 to 45 frames at 30 fps are 1.15 s on average.
    assert found["latency"]["real_time_factor"]["values"][0] == pytest.approx(5.0 / 1.15, rel=1e-6)


def test_sanity_rows_show_good_and_bad_figures(t2m):
    (found,) = measured("pretrain", t2m)
    answers, halves, jittered, shuffled = (found["views"][v] for v in ("answers", "halves", "jittered", "shuffled"))
    assert jittered["pa_mpjpe"]["mean"] < 40 < shuffled["pa_mpjpe"]["mean"]
    assert answers["mpjpe"]["mean"] < shuffled["mpjpe"]["mean"] / 2
    # Nothing is left out or added by shuffling, so figures of whole sets stay what they are.
    assert shuffled["diversity"]["values"][0] == pytest.approx(answers["diversity"]["values"][0])
    assert halves["mpjpe"]["count"] == 8 and halves["mpjpe"]["mean"] > 2 * answers["mpjpe"]["mean"]
    assert 0 < jittered["rotation_error"]["mean"] < 5 < shuffled["rotation_error"]["mean"]
    assert answers["multimodality"]["mean"] > 0 and answers["multimodality"]["count"] == 7


def test_a_motion_that_cannot_be_judged_is_left_out_and_named(t2m, motions, tmp_path):
    from solami_hf.processing.motion.motion_io import read_motion, write_motion

    path = motions(0, 0.02)
    short = read_motion(path)
    short.transl, short.poses = short.transl[:2], short.poses[:2]
    write_motion(path, short)
    (found,) = measured("pretrain", t2m)
    assert found["views"]["answers"]["mpjpe"]["count"] == 14
    assert any("has 2 frames, expected at least 3" in reason for reason in found["left_out"])
    (tmp_path / "data" / "m3-0.0.npz").unlink()
    with pytest.raises(FileNotFoundError, match="m3-0.0.npz, which is not there; --data names"):
        measured("pretrain", t2m)


def test_transcripts_and_captions(write_results):
    rows = [{"id": f"s{i}#0", "text": text, "reference_text": [hoped]} for i, (text, hoped) in enumerate([
        ("I'm here now", "I am here, now."), ("no", "no no no"), ("", "one more line"),
        ("all four words said", "all four words said"),
    ])]  # fmt: skip
    s2t = write_results("s2t", rows, "runs/s2t")
    people = [["a person waves", "someone waves a hand"], ["a man jumps up"], ["a woman sits down"], ["a dog runs"],
              ["a child dances"], ["a person kicks a ball"]]  # fmt: skip
    rows = [{"id": f"m{i}", "text": captions[0], "reference_text": captions} for i, captions in enumerate(people)]
    write_results("m2t", rows, "runs/m2t")
    captions, transcripts = measured("pretrain", s2t.parent)
    assert (captions["task"], transcripts["task"]) == ("m2t", "s2t")
    wer = transcripts["views"]["answers"]["wer"]
    assert wer["mean"] == pytest.approx(5 / 14) and wer["count"] == 4  # 2 + 3 words of 4 + 3 + 3 + 4
    assert (
        transcripts["views"]["jittered"]["wer"]["mean"] > 0.1 and transcripts["views"]["shuffled"]["wer"]["mean"] > 0.8
    )
    figures = captions["views"]
    assert figures["answers"]["bleu_1"]["mean"] == pytest.approx(1) and figures["answers"]["rouge_l"]["mean"] == 1
    for view in ("halves", "shuffled"):
        assert figures[view]["rouge_l"]["mean"] < 0.7 < figures["jittered"]["rouge_l"]["mean"] < 1
    assert captions["views"]["answers"]["cider"]["mean"] > 5


def test_controls_and_scores(chat):
    (found,) = measured("chat", chat)
    right = {name: row["right_line"]["mean"] for name, row in found["conditions"].items()}
    assert right == {"given": 1, "other_audio": 0, "other_motion": 0.75, "no_history": 0.5, "own_history": 1}
    controls = found["controls"]
    assert controls["listening"]["right_line"]["mean"] == 1 and controls["watching"]["right_line"]["mean"] == 0.25
    watching = controls["watching"]["right_line"]
    assert watching["count"] == 16 and watching["low"] < 0.25 < watching["high"] and watching["std"] == 0
    assert found["views"]["shuffled"]["right_line"]["mean"] == 0
    jittered = found["views"]["jittered"]  # one word in ten is another
    assert jittered["right_line"]["mean"] < 0.2 and jittered["nearest_line"]["mean"] > 0.6
    assert found["latency"]["first_audio"]["mean"] == pytest.approx(0.2)


def test_scores_compare_the_same_rounds(chat):
    lines = (chat / "results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    # The dialogues without sound have no control; all their answers are wrong.
    kept = [row for row in rows if not (row["condition"] == "other_audio" and row["id"] in ("d0", "d1"))]
    for row in kept:
        if row["condition"] == "given" and row["id"] in ("d0", "d1"):
            row["text"] = "nothing of the kind"
    (chat / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    (found,) = measured("chat", chat)
    assert found["conditions"]["given"]["right_line"]["mean"] == 0.5
    assert found["controls"]["listening"]["right_line"]["mean"] == 1


def test_sound_is_heard(with_sound, stub_ears):
    (found,) = measured("chat", with_sound)
    figures = found["views"]["answers"]
    assert figures["wer"]["mean"] == 0 and figures["wer_own"]["mean"] == 0 and figures["similarity"]["mean"] == 1
    assert found["views"]["shuffled"]["wer"]["mean"] > 0.5
    assert found["latency"]["real_time_factor"]["mean"] == pytest.approx(2.5 / 0.5)


def test_other_ears_are_asked_anew(with_sound, stub_ears, monkeypatch):
    class Deaf:
        def __init__(self, name, device):
            assert (name, device) == ("some/asr", "cpu")

        def __call__(self, audio):
            return ["" for _ in audio]

    monkeypatch.setattr("solami_hf.metrics.asr.HubTranscriber", Deaf)
    assert measured("chat", with_sound)[0]["views"]["answers"]["wer"]["mean"] == 0
    assert measured("chat", with_sound, asr="some/asr")[0]["views"]["answers"]["wer"]["mean"] == 1


def test_what_nobody_wrote_is_heard_in_the_sound(with_sound, stub_ears):
    rows = [json.loads(line) for line in (with_sound / "results.jsonl").read_text().splitlines()]
    (with_sound / "results.jsonl").write_text("".join(json.dumps(row | {"text": ""}) + "\n" for row in rows))
    (found,) = measured("chat", with_sound)
    assert found["conditions"]["given"]["right_line"]["mean"] == 1
    assert found["controls"]["listening"]["right_line"]["mean"] == 1
    assert "wer_own" not in found["views"]["answers"]


def test_without_the_extra_the_rest_is_measured_and_it_is_said(with_sound, monkeypatch):
    def missing(*args, **kwargs):
        raise ImportError("speech recognition needs the extra: pip install 'solami_hf[eval]'")

    monkeypatch.setattr("solami_hf.metrics.asr.Transcriber", missing)
    monkeypatch.setattr("solami_hf.metrics.speaker.SpeakerEmbedder", missing)
    (found,) = measured("chat", with_sound)
    assert "wer" not in found["views"]["answers"] and found["conditions"]["given"]["right_line"]["mean"] == 1
    assert "pip install 'solami_hf[eval]'" in found["left_out"]["speech recognition"]
    assert "Left out: voice similarity" in (with_sound / "evaluation/evaluation.md").read_text()


def test_a_judge_marks_with_and_without_the_reference(chat, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def mark(body):
        asked = body["messages"][1]["content"]
        good = "do not know" not in asked and "hello 0 1" in asked
        return json.dumps({"reason": "", "relevance": 5 if good else 1, "consistency": 3})

    with _module.chat_server(mark) as server:
        options = dict(judge_base_url=server.url, judge_model="stub", judge_repeats=2)
        (found,) = measured("chat", chat, judge_input_price=1.0, judge_output_price=2.0, **options)
        answers = found["views"]["answers"]
        # Both rounds of the first of four dialogues hold its first line.
        assert answers["relevance"]["mean"] == pytest.approx(2) and answers["consistency"]["mean"] == 3
        assert answers["relevance_with_reference"]["mean"] == pytest.approx(2)
        asked = [body["messages"][1]["content"] for body in server.requests]
        second = next(text for text in asked if "hello 3 2" in text and "<reference>" not in text)
        assert "Visitor: hello 3 1 (a person waves)\nCharacter: we sail at dawn tomorrow 1 (a bow)" in second
        assert any("<reference>\nwe sail" in text for text in asked)
        assert found["judge"]["requests"] >= len(asked) and found["judge"]["cost"] > 0
        count = len(asked)
        (again,) = measured("chat", chat, **options)
        assert len(server.requests) == count and again["judge"]["from_cache"] == again["judge"]["requests"]
    assert again["views"]["answers"]["relevance"] == answers["relevance"]
    assert "Judge: stub, 2 marks an answer" in (chat / "evaluation/evaluation.md").read_text()


def test_tables_and_card(chat, t2m, tmp_path):
    card = tmp_path / "model"
    card.mkdir()
    (card / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    assert main(["chat", str(chat), "--output", str(tmp_path / "out"), "--card", str(card)]) == 0
    text, page = ((tmp_path / "out" / f"evaluation.{suffix}").read_text() for suffix in ("md", "html"))
    assert "| tiny |" in text and "| shuffled |" in text and "Latency, s ↓" in text
    assert "| another user's sound | 100.0 ± 0.000 (100.0 to 100.0) | 0.000 ± 0.000 (0.000 to 0.000) |" in text
    assert "| listening score | 100.0 ± 0.000 (100.0 to 100.0) |" in text
    assert "another user&#39;s sound" in page and "http" not in page.split("</style>")[1]
    main(["pretrain", str(t2m), "--output", str(tmp_path / "out"), "--card", str(card)])
    main(["pretrain", str(t2m), "--output", str(tmp_path / "out"), "--card", str(card)])
    from huggingface_hub import ModelCard

    data = ModelCard.load(card / "README.md").data
    assert data.license == "mit" and data.model_name == "Mine"
    found = {(result.task_name, result.metric_type): result for result in data.eval_results}
    assert len(found) == len(data.eval_results)
    assert found["Conversation", "listening_score"].metric_value == 1
    assert found["Text to motion", "valid"].metric_args["count"] == 16
    text = (card / "README.md").read_text()
    assert text.count("# Mine\n") == text.count("\n## Evaluation\n") == 1 and "Listening score" in text


def test_all_rows_have_the_scale_of_all_references(t2m, monkeypatch):
    asked, of = [], Figures.of
    monkeypatch.setattr(Figures, "of", lambda self, *pairs: asked.append((self, *pairs)) or of(self, *pairs))
    measured("pretrain", t2m)
    figures, half, everybody = next(call for call in asked if len(call[1]) == 4)  # the row of halves
    real = mm.kinetic_set([joints_of(pair.reference_motion) for pair in everybody])
    made = mm.kinetic_set([joints_of(pair.motion) for pair in half])
    assert len(real) == 8
    assert of(figures, half, everybody)["diversity"].value == pytest.approx(mm.diversity(mm.standardize(made, real)))


def test_a_reference_without_words_costs_no_other_figure(write_results):
    lines = [("no", "no no no"), ("Hmm", "Hmm."), ("all of it", "all of it")]
    rows = [{"id": f"s{i}", "text": text, "reference_text": [hoped]} for i, (text, hoped) in enumerate(lines)]
    (transcripts,) = measured("pretrain", write_results("s2t", rows, "s2t"))
    wer = transcripts["views"]["answers"]["wer"]
    assert wer["mean"] == pytest.approx(2 / 6) and wer["count"] == 2
    rows = [{"id": f"m{i}", "text": "a", "reference_text": [text]} for i, text in enumerate(["一个人挥手", "a man"])]
    (captions,) = measured("pretrain", write_results("m2t", rows, "m2t"))
    assert captions["views"]["answers"]["valid"]["mean"] == 1 and "bleu_1" not in captions["views"]["answers"]
    assert any("at least one word" in reason for reason in captions["left_out"])


def test_what_was_measured_is_not_measured_again(t2m, monkeypatch):
    (first,) = measured("pretrain", t2m)
    lines = (t2m / "evaluation/parts/0.jsonl").read_bytes()
    kept = lines.splitlines(keepends=True)
    # As a killed run leaves it: the last part torn.
    (t2m / "evaluation/parts/0.jsonl").write_bytes(b"".join(kept[:-1]) + kept[-1][:20])
    seen, measure = [], parts_module.Measures.measure
    monkeypatch.setattr(parts_module.Measures, "measure", lambda self, part: seen.append(part) or measure(self, part))
    (again,) = measured("pretrain", t2m)
    assert len(seen) == 1 and again == first
    # Another answer in a file of the same name is another part.
    path = next((Path(t2m).parent / "data").glob("m2-0.02.npz"))
    os.utime(path, (1, 1))
    measured("pretrain", t2m)
    assert 1 < len(seen) < 10


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(t2m, tmp_path, monkeypatch):
    monkeypatch.undo()  # other processes draw as often as they should
    (alone,) = measured("pretrain", t2m, output=str(tmp_path / "one"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "solami_hf.metrics.evaluation",
        "pretrain",
        str(t2m),
        "--output",
        str(tmp_path / "two"),
    ]
    ranks = []
    for rank in ("0", "1"):
        env = os.environ | {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                            "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}  # fmt: skip
        ranks.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    (together,) = json.loads((tmp_path / "two/evaluation.json").read_text())["evaluations"]
    assert together == alone
    shares = [len(path.read_text().splitlines()) for path in sorted((tmp_path / "two/parts").iterdir())]
    whole = len((tmp_path / "one/parts/0.jsonl").read_text().splitlines())
    assert sum(shares) == whole and min(shares) >= whole // 2


def test_bad_input(t2m, chat, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no results; make some with `solami generate`"):
        run(EvaluateArguments("chat", [str(tmp_path / "nothing")]))
    with pytest.raises(ValueError, match="answers of the task t2m, but `chat` means chat"):
        run(EvaluateArguments("chat", [str(t2m)]))
    with pytest.raises(ValueError, match="a results folder is named twice"):
        run(EvaluateArguments("pretrain", [str(t2m), str(t2m)]))
    with pytest.raises(ValueError, match="Got 'stage3', expected one of: pretrain, chat"):
        EvaluateArguments("stage3", ["x"])
    whole = (t2m / "results.jsonl").read_text()
    (t2m / "results.jsonl").write_text(whole.replace('"valid"', '"fine"', 1))
    with pytest.raises(ValueError, match="results.jsonl:1 lacks valid"):
        Results(t2m)
    (t2m / "results.jsonl").write_text(whole[:-30])
    assert len(Results(t2m).rows) == 15  # a killed run's last line
    (t2m / "results.jsonl").write_text(whole[:200] + "\n" + whole)
    with pytest.raises(ValueError, match="results.jsonl:1 is damaged"):
        Results(t2m)
    (t2m / "results.jsonl").write_text("")
    with pytest.raises(ValueError, match="has no answers yet"):
        Results(t2m)
    (t2m / "run.json").write_text('{"version": 2, "task": "t2m"}')
    with pytest.raises(ValueError, match="has results of version 2"):
        Results(t2m)


def test_captions_are_scored_by_the_module_with_the_model_that_is_named():
    asked = []

    def compute(name, predictions, references=None, scores=(), **options):
        if name == "answer_validity":
            return {"valid": 1.0}
        asked.append((scores, options))
        return {"bleu_1": 0.5, "bleu_4": 0.25, "rouge_l": 0.75, "bertscore": 0.9}

    pairs = [Pair(f"m{i}", 0, True, None, None, "a dog", None, None, ("a cat",), {}) for i in range(3)]
    found = Figures("m2t", None, compute, bert={"model_id": "some/bert"}).of(pairs)
    assert {name: estimate.value for name, estimate in found.items()} == {
        "valid": 1.0, "rouge_l": 0.75, "bleu_1": 0.5, "bleu_4": 0.25, "bertscore": 0.9,
    }  # fmt: skip
    assert (("bertscore",), {"model_id": "some/bert"}) in asked
    assert summarize([found["bertscore"]])["low"] is None  # too dear to be drawn again
    with_missing = Figures(
        "m2t", None, lambda name, **inputs: {"valid": 1.0} if name == "answer_validity" else missing()
    )
    assert list(with_missing.of(pairs)) == ["valid"] and list(with_missing.left_out) == ["pip install it"]


def missing():
    raise ImportError("pip install it")


def test_codes_are_decoded_where_there_are_no_files(write_results, tiny_model, tiny_processor, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    rows = [
        {
            "id": f"c{i}",
            "body": [i, 2, 3, 4],
            "hand": [1, 2, 3, i],
            "reference_body": [1, 2, 3, i],
            "reference_hand": [4, 3, 2, 1],
        }  # fmt: skip
        for i in range(4)
    ]
    folder = write_results("t2m", rows, checkpoint=str(tmp_path / "model"))
    (found,) = measured("pretrain", folder)
    assert found["views"]["answers"]["mpjpe"]["count"] == 4 and found["views"]["answers"]["mpjpe"]["mean"] > 0
    assert found["latency"] == {}


def test_results_are_found_from_any_folder(t2m, monkeypatch, tmp_path):
    """They are named relatively, and their media are read later; so are those of the data, and the codec."""
    run = json.loads((t2m / "run.json").read_text()) | {"checkpoint": "data", "input": "data"}
    (t2m / "run.json").write_text(json.dumps(run))
    rows = [json.loads(line) for line in (t2m / "results.jsonl").read_text().splitlines()]
    row = rows[0] | {"reference_motion": Path(rows[0]["reference_motion"]).name}
    coded = rows[1] | {"motion": None, "body": [1], "hand": [1]}
    (t2m / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (row, coded)))
    monkeypatch.chdir(tmp_path)
    given, other = Results("t2m").repetitions("given")[0]
    monkeypatch.chdir(tmp_path / "data")
    assert given.reference_motion.path.is_file() and given.motion.path.is_file()
    assert other.motion.codec == str(tmp_path / "data")


def test_references_that_went_through_the_codec_stand_beside_the_answers(t2m, tmp_path, tiny_processor):
    from solami_hf.metrics.evaluation import media

    (before,) = measured("pretrain", t2m)
    assert "round_trip" not in before["views"]  # models/tiny is not at hand
    tiny_processor.motion_codec.set_statistics(0.1, 1.5, 0.1, 1.5)
    tiny_processor.save_pretrained(tmp_path / "tiny")
    run = json.loads((t2m / "run.json").read_text()) | {"checkpoint": str(tmp_path / "tiny")}
    (t2m / "run.json").write_text(json.dumps(run))
    (found,) = measured("pretrain", t2m)
    row = found["views"]["round_trip"]
    assert list(found["views"]) == ["answers", "halves", "jittered", "round_trip", "shuffled"]
    assert row["mpjpe"]["count"] == 16 and row["valid"]["mean"] == 1
    assert row["mpjpe"]["mean"] > found["views"]["jittered"]["mpjpe"]["mean"]  # its weights are random
    assert found["views"]["answers"]["mpjpe"] == before["views"]["answers"]["mpjpe"]
    assert "through the model's motion codec and back" in (t2m / "evaluation" / "evaluation.md").read_text()
    media._processor.cache_clear()
