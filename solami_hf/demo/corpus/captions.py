"""Captions of the demo's motions: several captions an action, and the way back from a caption to its action."""

import re

import numpy as np

SLOW_BELOW, QUICK_ABOVE = 0.92, 1.1

# every caption names its action; {hand} is "with the left hand" or so where one hand acts, {pace} an adverb of speed
CAPTIONS: dict[str, tuple[str, ...]] = {
    "wave": (
        "a person waves {hand} {pace}",
        "someone greets by waving {hand}",
        "a friendly wave {hand}",
        "the person is waving hello {pace}",
        "somebody waves goodbye {hand}",
        "a {pace} wave of the hand",
    ),
    "bow": (
        "a person bows {pace}",
        "someone makes a deep bow",
        "the person is bowing politely",
        "somebody bows from the hips {pace}",
        "a {pace} respectful bow",
        "the person greets with a bow",
    ),
    "nod": (
        "a person nods {pace}",
        "someone nods the head",
        "the person is nodding yes",
        "somebody agrees with a nod",
        "a {pace} nod of the head",
        "the person nods a few times {pace}",
    ),
    "shake_head": (
        "a person shakes the head {pace}",
        "someone is shaking the head",
        "the person shakes the head to say no",
        "somebody disagrees by shaking the head",
        "a {pace} shake of the head",
        "the person shakes the head from side to side",
    ),
    "clap": (
        "a person claps {pace}",
        "someone claps both hands",
        "the person is clapping",
        "somebody applauds by clapping {pace}",
        "a {pace} clapping of hands",
        "the person claps in front of the chest",
    ),
    "point": (
        "a person points forward {hand}",
        "someone points at something {hand}",
        "the person is pointing ahead {pace}",
        "somebody points with one finger",
        "the person stretches an arm and points {pace}",
        "a {pace} pointing gesture {hand}",
    ),
    "shrug": (
        "a person shrugs {pace}",
        "someone shrugs the shoulders",
        "the person is shrugging",
        "somebody does not know and shrugs {pace}",
        "a {pace} shrug of the shoulders",
        "the person shrugs with open palms",
    ),
    "thumbs_up": (
        "a person gives a thumbs up {hand}",
        "someone shows a thumbs up {pace}",
        "the person holds the thumb up {hand}",
        "somebody approves with a thumbs up",
        "a {pace} thumbs up",
        "the person raises a thumb {hand}",
    ),
    "beckon": (
        "a person beckons {hand}",
        "someone is beckoning {pace}",
        "the person beckons somebody to come closer",
        "somebody beckons with the palm up",
        "a {pace} beckoning gesture {hand}",
        "the person beckons again and again {pace}",
    ),
    "raise_hands": (
        "a person raises both hands {pace}",
        "someone raises both arms over the head",
        "the person throws both hands up",
        "somebody lifts both hands high {pace}",
        "both hands go up into the air {pace}",
        "the person cheers with both arms up",
    ),
    "cross_arms": (
        "a person crosses the arms {pace}",
        "someone folds the arms",
        "the person stands with crossed arms",
        "somebody is crossing the arms {pace}",
        "the arms are folded over the body",
        "the person folds both arms {pace}",
    ),
    "offer_hand": (
        "a person offers a handshake {hand}",
        "someone holds out a hand for a handshake {pace}",
        "the person wants a handshake",
        "somebody reaches out for a handshake {hand}",
        "a {pace} handshake is offered",
        "the person greets with a handshake",
    ),
    "salute": (
        "a person salutes {hand}",
        "someone gives a salute {pace}",
        "the person is saluting",
        "somebody salutes like a soldier {pace}",
        "a {pace} military salute",
        "the person stands straight and salutes {hand}",
    ),
    "hands_on_hips": (
        "a person puts both hands on the hips {pace}",
        "someone stands with hands on the hips",
        "the person rests the hands on the hips",
        "somebody sets the fists against the hips {pace}",
        "hands go to the hips {pace}",
        "the person has hands on hips and elbows out",
    ),
    "scratch_head": (
        "a person scratches the head {hand}",
        "someone is scratching the head {pace}",
        "the person scratches their hair",
        "somebody thinks and scratches the head",
        "a {pace} scratch of the head {hand}",
        "the person scratches behind the ear {pace}",
    ),
    "hand_on_heart": (
        "a person lays a hand on the heart {pace}",
        "someone puts one hand over the heart",
        "the person touches the heart {hand}",
        "somebody holds a hand to the heart",
        "a palm rests on the heart {pace}",
        "the person thanks with a hand on the heart",
    ),
    "walk": (
        "a person walks {pace}",
        "someone is walking forward {pace}",
        "the person goes for a walk",
        "somebody walks straight ahead",
        "the person walks a few steps {pace}",
        "a {pace} walk forward",
    ),
    "run": (
        "a person runs {pace}",
        "someone is running forward",
        "the person goes for a run",
        "somebody runs straight ahead {pace}",
        "the person is running {pace}",
        "a {pace} run forward",
    ),
    "jump": (
        "a person jumps {pace}",
        "someone is jumping forward",
        "the person makes a big jump",
        "somebody jumps off the ground {pace}",
        "a {pace} jump with both feet",
        "the person bends the knees and jumps",
    ),
    "kick": (
        "a person kicks {pace}",
        "someone is kicking with one leg",
        "the person gives a high kick",
        "somebody kicks to the side {pace}",
        "a {pace} kick with the foot",
        "the person steps up and kicks",
    ),
    "punch": (
        "a person punches {pace}",
        "someone throws a punch",
        "the person is punching the air",
        "somebody punches with the fist {pace}",
        "a {pace} punch forward",
        "the person steps up and punches",
    ),
    "dance": (
        "a person dances {pace}",
        "someone is dancing",
        "the person does a {pace} dance",
        "somebody dances to music",
        "the person dances with the whole body {pace}",
        "a lively dance",
    ),
    "spin": (
        "a person spins around {pace}",
        "someone is spinning on one leg",
        "the person does a {pace} spin",
        "somebody spins like a top",
        "the person makes a spin on the spot",
        "a {pace} spin with a leg stretched out",
    ),
    "spinkick": (
        "a person does a spinning kick {pace}",
        "someone performs a spin kick",
        "the person jumps into a spinning kick",
        "somebody turns with a flying spin kick {pace}",
        "a {pace} spinning kick in the air",
        "the person lands a spin kick",
    ),
    "cartwheel": (
        "a person does a cartwheel {pace}",
        "someone turns a cartwheel",
        "the person performs a sideways cartwheel",
        "somebody goes over the hands in a cartwheel {pace}",
        "a {pace} cartwheel",
        "the person is cartwheeling",
    ),
    "crawl": (
        "a person crawls {pace}",
        "someone is crawling on the floor",
        "the person crawls on hands and knees",
        "somebody crawls forward {pace}",
        "a {pace} crawl over the ground",
        "the person keeps low and crawls",
    ),
    "roll": (
        "a person does a forward roll {pace}",
        "someone rolls over the floor",
        "the person is rolling on the ground",
        "somebody rolls over one shoulder {pace}",
        "a {pace} roll forward",
        "the person ducks down and rolls",
    ),
    "backflip": (
        "a person does a backflip {pace}",
        "someone performs a backflip",
        "the person leaps into a backflip",
        "somebody turns over in a backflip {pace}",
        "a {pace} backflip",
        "the person lands a backflip",
    ),
    "get_up": (
        "a person gets up from the floor {pace}",
        "someone is getting up from the ground",
        "the person stands up from lying down",
        "somebody gets up on both feet {pace}",
        "the person is standing up {pace}",
        "a {pace} getting up from the floor",
    ),
}

_KEYWORDS = {
    "wave": r"wav(e|es|ing)",
    "bow": r"bow(s|ing)?",
    "nod": r"nod(s|ding)?",
    "shake_head": r"(shake[sn]?|shaking|shake of) the head",
    "clap": r"clap(s|ping)?",
    "point": r"point(s|ing)?",
    "shrug": r"shrug(s|ging)?",
    "thumbs_up": r"thumbs?",
    "beckon": r"beckon(s|ing)?",
    "raise_hands": r"(raises?|raising|throws?|lifts?) both (hands|arms)|both (hands|arms) (up|go up)",
    "cross_arms": r"(cross(es|ing|ed)?|folds?|folding) ((the|both) )?arms|arms are folded",
    "offer_hand": r"handshake",
    "salute": r"salut(e|es|ing)",
    "hands_on_hips": r"(on|against|to) (the )?hips",
    "scratch_head": r"scratch(es|ing)?",
    "hand_on_heart": r"heart",
    "walk": r"walk(s|ing)?",
    "run": r"runs?|running",
    "jump": r"jump(s|ing)?",
    "kick": r"kick(s|ing)?",
    "punch": r"punch(es|ing)?",
    "dance": r"danc(e|es|ing)",
    "spin": r"spin(s|ning)?",
    "spinkick": r"spin(ning)? kick",
    "cartwheel": r"cartwheel(s|ing)?",
    "crawl": r"crawl(s|ing)?",
    "roll": r"roll(s|ing)?",
    "backflip": r"backflips?",
    "get_up": r"(gets?|getting) up|(stands?|standing) up",
}
_PATTERNS = {action: re.compile(rf"\b({words})\b", re.IGNORECASE) for action, words in _KEYWORDS.items()}
_CONTAINS = {"spinkick": {"spin", "kick", "jump"}}  # the words of one action that another one's name is made of


def _fill(template: str, side: str | None, pace: str) -> str:
    hand = f"with the {side} hand" if side else ""
    return " ".join(template.format(hand=hand, pace=pace).split())


def pace_word(speed: float | None) -> str:
    """ "slow", "quick" or "" for a speed factor; `None` gives ""."""
    if speed is None:
        return ""
    return "slow" if speed < SLOW_BELOW else "quick" if speed > QUICK_ABOVE else ""


def caption(template: str, side: str | None = None, speed: float | None = None) -> str:
    """A template of `CAPTIONS` with what is known of side ("left", "right") and speed (1 is usual)."""
    pace = pace_word(speed)
    if pace and not re.search(r"\b(a|does a) \{pace\}", template):
        pace += "ly"
    return _fill(template, side, pace)


def captions_for(
    action: str, rng: np.random.Generator, side: str | None = None, speed: float | None = None, count: int = 4
) -> list[str]:
    """`count` different captions of an action, in random order; about half of them tell side and speed where known.

    Raises:
        ValueError: an unknown action, or `count` beyond the captions there are.
    """
    if action not in CAPTIONS:
        raise ValueError(f"`action` is {action!r}, expected one of {', '.join(CAPTIONS)}.")
    bank = CAPTIONS[action]
    if not 1 <= count <= len(bank):
        raise ValueError(f"`count` is {count}, expected 1 to {len(bank)}.")
    chosen = rng.permutation(len(bank))[:count]
    told = rng.random(count) < 0.5
    known = [(side, speed) if tell else (None, None) for tell in told]
    return [caption(bank[i], *details) for i, details in zip(chosen, known, strict=True)]


def action_of_caption(text: str) -> str | None:
    """The action that a caption names, by keywords; `None` if it names none, or several."""
    found = {action for action, pattern in _PATTERNS.items() if pattern.search(text)}
    for action, parts in _CONTAINS.items():
        if action in found:
            found -= parts
    return found.pop() if len(found) == 1 else None
