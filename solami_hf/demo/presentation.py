"""The demo's chat on raw held-out files, and its page."""

from itertools import groupby
from pathlib import Path

from ..generation.chat import chat
from ..generation.pipeline import SolamiPipeline
from ..hub_cards.cards import model_card
from ..processing.datasets.manifests import read_manifest
from ..processing.files.text_files import read_json, write_json
from ..processing.motion.mesh.contact import hands_off_body
from ..processing.motion.motion_io import read_motion
from ..report.page import Conversation, Curve, MetricRow, Performer, Scene, Stage, standing_motion, write_report
from ..training.run_page import curves_of_log
from .action_recognizer import ActionRecognizer
from .demo_evaluation import FIGURES, target_met

NEXT_STEPS = [
    "Talk to it with your own files: solami chat --checkpoint runs/demo/checkpoint --character ada --output runs/chat "
    "--turns you.wav,you.npz",
    "Bring your captures: a folder with manifest.jsonl, then solami prepare motion FOLDER --processor "
    "runs/demo/checkpoint --output TOKENS",
    "Start from a real language model: SolamiForCausalLM.from_backbone('HuggingFaceTB/SmolLM2-135M', tokenizer)",
    "Give it longer: solami demo --minutes 60 --out runs/hour",
]


def chosen_conversations(rows: list[dict]) -> list[dict]:
    """One held-out conversation per character, the longest first, one of them about what the user does."""
    rows = [row for row in rows if row["split"] == "test" and row["source"] == "rates"]
    by_length = sorted(rows, key=lambda row: -len(row["turns"]))
    chosen = list({row["character"]: row for row in reversed(by_length)}.values())
    return chosen + [row for row in rows if row["turns"][1]["depends_on"] == "motion"][:2]


def play_conversations(checkpoint: Path, corpus: Path, motion_corpus: Path, output: Path) -> None:
    """Runs the chosen conversations from raw wav and npz files and writes `output/chat.json`, an entry a round. The
    character's action is named by the nearest clip of `motion_corpus`, not taken from the script."""
    pipeline = SolamiPipeline.from_pretrained(checkpoint, max_new_tokens=192)
    recognizer, entries = ActionRecognizer.from_corpus(motion_corpus), []
    for row in chosen_conversations(read_manifest(corpus)):
        turns = row["turns"]
        content = [[{"type": t, t: str(corpus / turn[t])} for t in ("motion", "audio")] for turn in turns[1::2]]
        users = [{"role": "user", "content": blocks} for blocks in content]
        rounds = chat(pipeline, users, output / row["id"], turns[0]["text"])
        for number, (user, answer, reply) in enumerate(zip(turns[1::2], turns[2::2], rounds, strict=True), 1):
            entries.append(
                {
                    "conversation": row["id"],
                    "character": row["character"],
                    "topic": row["topic"],
                    "round": number,
                    "user_text": user["text"],
                    "user_action": user["action"],
                    "user_audio": str(corpus / user["audio"]),
                    "user_motion": str(corpus / user["motion"]),
                    "character_audio": reply["audio"],
                    "character_motion": reply["motion"],
                    "text": reply["text"],
                    "action": recognizer(read_motion(reply["motion"])) if reply["valid"] else None,
                    "expected": answer["text"],
                    "expected_action": answer["action"],
                    "valid": reply["valid"],
                }
            )
    write_json(output / "chat.json", entries)


def write_demo_report(out: Path, checkpoint: Path, state: dict) -> None:
    """`report.html` and `report.json` of a run."""
    chat_entries, metrics = read_json(out / "chat" / "chat.json"), read_json(out / "metrics.json")
    figures, intervals = metrics["figures"], metrics["intervals"]
    names = read_json(checkpoint / "processor_config.json")["characters"]
    write_report(
        out / "report.html",
        title="A character that listens, watches and answers",
        lead=(
            "Made on this machine from authored gestures, retargeted mocap and synthesized speech: motion tokenizers, "
            "a small language model pretrained on six tasks and tuned on dialogues. Recordings, motions and speaking "
            f"rates below were never trained on. Of {metrics['counts']['round1']} held-out first rounds, "
            f"{figures['round1_right_line']:.0f} % are answered with the right line; with another user's audio "
            f"{figures['round1_wrong_audio']:.0f} %."
        ),
        conversations=[
            _conversation(list(group), names)
            for _, group in groupby(chat_entries, lambda entry: entry["conversation"])
        ],
        curves=_curves(out),
        metrics=[_row(name, figures[name], intervals.get(name)) for name in FIGURES if name in figures],
        stages=[Stage(name, stage["seconds"]) for name, stage in state["stages"].items()],
        next_steps=NEXT_STEPS,
    )
    measured = {**figures, "intervals": intervals, "counts": metrics["counts"]}
    report = {"stages": state["stages"], "metrics": measured, "chat": chat_entries, "checkpoint": str(checkpoint)}
    (checkpoint / "README.md").write_text(_card(checkpoint, figures, state), encoding="utf-8")
    write_json(out / "report.json", report)


def _card(checkpoint: Path, figures: dict, state: dict) -> str:
    config = read_json(checkpoint / "config.json")
    sizes = {f"{name} codes": span["size"] for name, span in config["modalities"].items()}
    return model_card(
        checkpoint.name,
        description="A small model made by `solami demo` to show the whole road; it knows its scripted dialogues.",
        facts={k: config[k] for k in ("answer_format", "hidden_size", "num_hidden_layers", "vocab_size")} | sizes,
        training={f"{name}, seconds": stage["seconds"] for name, stage in state["stages"].items()},
        results={FIGURES[name]["name"]: value for name, value in figures.items()},
        evaluated_on="the held-out split of `solami demo`",
        limits=[
            "One synthetic voice, scripted dialogues and authored gestures; unseen phrasings mostly fail (see above).",
            "It writes level 0 of the speech codec; the packaged acoustic model adds the voice.",
        ],
        license="apache-2.0",
    )


def _conversation(entries: list[dict], names: dict) -> Conversation:
    first = entries[0]
    name = names[first["character"]]["name"]
    scenes = []
    for e in entries:
        user = _performer("You", e["user_motion"], e["user_audio"], e["user_text"], e["user_action"])
        if e["valid"]:
            character = _performer(name, e["character_motion"], e["character_audio"], e["text"], e["action"])
        else:
            character = Performer.of_motion(name, standing_motion(), None, "(malformed answer)")
        scenes.append(Scene(f"Round {e['round']}", "", user, character, e["expected"], e["valid"]))
    return Conversation(f"{name}: {first['topic']}", names[first["character"]]["system"], scenes)


def _performer(name: str, motion: str, audio: str, text: str, action: str | None) -> Performer:
    shown = hands_off_body(read_motion(motion))
    return Performer.of_motion(name, shown, audio, text, action and action.replace("_", " "))


def _curves(out: Path) -> list[Curve]:
    codec, pretrain, chat = (read_json(out / f / "history.json") for f in ("motion_codec", "pretrained", "checkpoint"))
    charts = {
        "Stage 1: motion tokenizers": (codec["log"], "loss", "feature_loss"),
        "Stage 2: pretraining on six tasks": (pretrain, "loss"),
        "Stage 3: chat": (chat, "loss"),
    }
    return [
        curve for title, (log, *names) in charts.items() for curve in curves_of_log(log, {title: ("loss", *names)})
    ]


def _row(name: str, value: float, bounds: list[float] | None = None) -> MetricRow:
    """A figure and its 95 % interval, where there is one, as the page shows them."""
    figure = FIGURES[name]
    wanted = [f"{k.replace('_', ' ')} {figure[k]}{figure['unit']}" for k in ("at_least", "at_most") if k in figure]
    shown = f"{value:.1f}{figure['unit']}" + (f" ({bounds[0]:.1f} to {bounds[1]:.1f})" if bounds else "")
    wanted = wanted[0] if wanted else None
    return MetricRow(figure["name"], shown, wanted, target_met(name, value), figure["meaning"], figure["group"])
