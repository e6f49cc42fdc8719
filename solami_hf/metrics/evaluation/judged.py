"""A language model's marks for the answers of a chat, as figures beside the others."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from ..judging import SCORES, JudgeSettings
from .answer_pairs import Pair
from .intervals import Estimate, Ratio

COUNTED = ("requests", "from_cache", "prompt_tokens", "completion_tokens", "cost", "paid", "failed_marks")


class Judged:
    """Marks pairs through the loaded `dialogue_judge` module, each answer `repeats` times. `said` maps a pair to what
    its answer says, None where it has none; `conversations` are all rows of the condition, for the rounds before an
    answer. `usage` are requests, tokens and cost of all that was judged, `agreement` that of the repeats, by view and
    figure."""

    def __init__(self, module, settings: JudgeSettings, repeats: int, said: Callable, conversations: Sequence[dict]):
        self.module, self.settings, self.repeats, self.said = module, settings, repeats, said
        self.rounds = {(row["id"], row["round"], row["seed"]): row for row in conversations}
        self.usage: dict[str, float | None] = {}
        self.agreement: dict[str, dict] = {}
        self.judge: object = None

    def of(self, pairs: list[Pair], view: str) -> dict[str, Estimate]:
        """The estimates by name; with the reference in the prompt for those that have one."""
        found = {}
        for shown in (False, True):
            some = [(pair, self.said(pair)) for pair in pairs if pair.reference_texts or not shown]
            some = [(pair, said) for pair, said in some if said is not None]
            if some:
                found.update(self._marks(some, shown, view))
        return found

    def _marks(self, some: list[tuple[Pair, str]], shown: bool, view: str) -> dict[str, Estimate]:
        pairs = [pair for pair, _ in some]
        result = self.module.compute(
            predictions=[said for _, said in some],
            references=[pair.reference_texts[0] if pair.reference_texts else None for pair in pairs],
            contexts=[self.context(pair.row) for pair in pairs],
            with_reference=shown,
            repeats=self.repeats,
            **asdict(self.settings),
        )
        self.judge = result["judge"]
        for name in COUNTED:
            if result[name] is not None:
                self.usage[name] = self.usage.get(name, 0) + result[name]
        found = {}
        for name in SCORES:
            marked = [(p.item, sum(m) / len(m)) for p, m in zip(pairs, result[f"{name}_marks"], strict=True) if m]
            label = f"{name}_with_reference" if shown else name
            found[label] = Ratio([item for item, _ in marked], [mark for _, mark in marked], value=result[name])
            self.agreement.setdefault(view, {})[label] = result[f"{name}_agreement"]
        return found

    def context(self, row: dict) -> list[dict]:
        """The conversation before an answer, with what was done in brackets. Raises ValueError: the results do not
        tell what the user said."""
        system = row.get("system") or row.get("character") or ""
        messages = [{"role": "system", "content": system}] if system else []
        for number in range(1, row["round"] + 1):
            turn = self.rounds.get((row["id"], number, row["seed"]))
            if turn is None or (row["condition"] == "no_history" and number < row["round"]):
                continue
            messages.append({"role": "user", "content": _said(turn.get("user_text"), turn.get("user_motion_text"))})
            if number == row["round"]:
                break
            own = row["condition"] == "own_history"
            if own and not turn["valid"]:
                messages.pop()
                continue
            text = turn["text"] if own else (turn["reference_text"] or [""])[0]
            motion = None if own else turn.get("reference_motion_text")
            messages.append({"role": "assistant", "content": _said(text, motion)})
        return messages


def _said(text: str | None, motion: str | None) -> str:
    if not (text or motion):
        raise ValueError(
            "the results do not tell what was said before an answer (user_text), so nobody can judge it; leave the "
            "judge out"
        )
    return " ".join(filter(None, (text, motion and f"({motion})")))
