"""Text as it is written to text as it is spoken: numbers, symbols and abbreviations in words (English)."""

import re
import unicodedata

_NAMES = "ay bee see dee ee eff jee aitch eye jay kay ell em en oh pee cue ar ess tee you vee double-you ex why zee"
LETTERS = dict(zip("abcdefghijklmnopqrstuvwxyz", _NAMES.split(), strict=True))
# Spelled although they have vowels. Capitals without a vowel are spelled anyway.
SPELLED = frozenset("AI ATM AKA API DIY EU FAQ FBI CIA IT ID IQ LA UFO UK UN URL US USA USB UV VIP".split())
ABBREVIATIONS = {
    "mr.": "mister", "mrs.": "misses", "ms.": "miss", "dr.": "doctor", "prof.": "professor", "st.": "saint",
    "vs.": "versus", "etc.": "et cetera", "e.g.": "for example", "i.e.": "that is", "approx.": "approximately",
    "a.m.": "ay em", "p.m.": "pee em", "no.": "number",  # the last before digits only
}  # fmt: skip
UNITS = {
    "km/h": "kilometer per hour", "mph": "mile per hour", "km": "kilometer", "cm": "centimeter", "mm": "millimeter",
    "kg": "kilogram", "mg": "milligram", "g": "gram", "m": "meter", "ml": "milliliter", "l": "liter", "ft": "foot",
    "lb": "pound", "lbs": "pound", "min": "minute", "h": "hour", "am": "ay em", "pm": "pee em", "gb": "gigabyte",
    "mb": "megabyte", "hz": "hertz", "%": "percent",
}  # fmt: skip
_SEVERAL = {"km/h": "kilometers per hour", "mph": "miles per hour", "ft": "feet"}  # others get an s, or nothing:
_SEVERAL |= {unit: UNITS[unit] for unit in ("am", "pm", "hz", "%")}
SYMBOLS = {
    "&": " and ", "@": " at ", "+": " plus ", "=": " equals ", "%": " percent ", "°": " degrees ", "/": " or ",
    "#": " number ",
}  # fmt: skip
CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
}
_PLAIN = {
    **dict.fromkeys("‘’‛´`", "'"),
    **dict.fromkeys('“”„«»"()[]{}', " "),
    **dict.fromkeys("—–", " - "),
    **dict.fromkeys("‐‑−", "-"),
    "…": ". ",
}
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SENTENCE_END = re.compile(r"""[.!?…]+["'”’»)\]]*(?=\s)""")
_FEWEST_WORDS = 3
"""Of a sentence that is said alone."""
_LONGEST_NUMBER = 12  # digits; longer ones are said digit by digit


def spoken_text(text: str) -> str:
    """What a reader would say: lower-case words, with the marks `' . , ? ! - : ;` that say how. Raises ImportError:
    the text has digits, and num2words is not installed."""
    text = expand_text(text).lower()
    text = re.sub(r"[^a-z'.,?!\-:; ]", " ", text)
    text = re.sub(r"(?<![a-z])'|'(?![a-z])", " ", text)  # quotes, not apostrophes
    text = re.sub(r"(?<![a-z])-+|-+(?![a-z])", ", ", text)  # dashes, not hyphens
    text = re.sub(r"\s+(?=[.,?!:;])", "", re.sub(r"\s+", " ", text))
    text = re.sub(r"[.,?!:;]+(?=[.,?!:;])", "", re.sub(r"[.,:;]+(?=[?!])", "", text)) if text else text
    return text.lstrip(" .,?!:;-").strip()


def spoken_sentences(text: str, ended: bool = True) -> list[str]:
    """The parts of a text that are said one after another: its sentences, very short ones with the next. Unless all
    of it is there (`ended`), what white space does not follow yet is left out. A text that goes on has no other
    sentences than those that its beginning has, so that they can be said while it is being written."""
    sentences, start = [], 0
    for mark in _SENTENCE_END.finditer(text):
        words = text[start : mark.end()].split()
        abbreviated = words and (words[-1].lower() in ABBREVIATIONS or re.fullmatch(r"[A-Za-z]\.", words[-1]))
        if len(words) >= _FEWEST_WORDS and not abbreviated:
            sentences.append(" ".join(words))
            start = mark.end()
    rest = " ".join(text[start:].split())
    return [*sentences, rest] if ended and rest else sentences


def expand_text(text: str) -> str:
    """Text with numbers, symbols and abbreviations in words; capitals and marks stay, accents go. Raises
    ImportError: the text has digits, and num2words is not installed."""
    text = "".join(_PLAIN.get(character, character) for character in text)
    text = re.sub(r"(?:https?://|www\.)\S+", " ", text)
    text = unicodedata.normalize("NFKD", text.replace("°", "\0")).replace("\0", "°")
    text = "".join(character for character in text if not unicodedata.combining(character))
    if re.search(r"\d", text):
        text = _numbers_in_words(text)
    text = re.sub(r"(?<![\w.])[A-Za-z.]+\.(?!\w)", _abbreviation, text)
    text = re.sub(r"\b[A-Z]{2,5}(?=s?\b)", _capitals, text)
    text = re.sub(r"\b[B-HJ-Z]\b(?!['.])", lambda found: LETTERS[found[0].lower()], text)
    return re.sub(r"\s+", " ", "".join(SYMBOLS.get(character, character) for character in text)).strip()


def _abbreviation(found: re.Match) -> str:
    word = found[0].lower()
    return ABBREVIATIONS[word] if word in ABBREVIATIONS and word != "no." else found[0]


def _capitals(found: re.Match) -> str:
    """Letters' names of an abbreviation in capitals; a word in capitals stays."""
    word = found[0]
    if word in SPELLED or not re.search("[AEIOUY]", word):
        return " ".join(LETTERS[letter] for letter in word.lower())
    return word


def _numbers_in_words(text: str) -> str:
    text = re.sub(r"\b[Nn]o\. ?(?=\d)", "number ", text)
    text = re.sub(rf"([$€£])({_NUMBER})(?: (thousand|million|billion|trillion)\b)?", _money, text)
    text = re.sub(r"\b([01]?\d|2[0-3]):([0-5]\d)\b", _clock, text)
    text = re.sub(r"\b(\d+)(?:st|nd|rd|th)\b", lambda found: _say(int(found[1]), to="ordinal"), text)
    text = re.sub(r"\b(1[1-9]\d0|20\d0)'?s\b", lambda found: _plural(_say(int(found[1]), to="year")), text)
    text = re.sub(r"'?\b([2-9]0)'?s\b", lambda found: _plural(_say(int(found[1]))), text)
    text = re.sub(r"(\d)\s?-\s?(?=\d)", r"\1 to ", text)
    units = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
    text = re.sub(rf"(?<![\w.])({_NUMBER})\s?({units})(?!\w)", _measure, text)
    text = re.sub(r"(?<![\w.,])(1[1-9]\d\d|20\d\d)(?!\w|[.,]\d)", lambda found: _say(int(found[1]), to="year"), text)
    text = re.sub(rf"(?<![\w])-(?={_NUMBER})", "minus ", text)
    return re.sub(_NUMBER, lambda found: f" {_number(found[0])} ", text)


def _money(found: re.Match) -> str:
    one, many, small, smalls = CURRENCIES[found[1]]
    if found[3]:
        return f"{_number(found[2])} {found[3]} {many}"
    whole, _, part = found[2].replace(",", "").partition(".")
    part = int(part.ljust(2, "0")[:2]) if part else 0
    said = [f"{_number(whole)} {one if int(whole) == 1 else many}"] if int(whole) or not part else []
    return " and ".join(said + ([f"{_number(str(part))} {small if part == 1 else smalls}"] if part else []))


def _clock(found: re.Match) -> str:
    hour, minute = int(found[1]), int(found[2])
    if not minute:
        return f"{_say(hour)} o'clock" if 0 < hour < 13 else f"{_say(hour)} hundred"
    return f"{_say(hour)} {'oh ' if minute < 10 else ''}{_say(minute)}"


def _measure(found: re.Match) -> str:
    unit = found[2]
    name = UNITS[unit] if found[1] == "1" else _SEVERAL.get(unit, f"{UNITS[unit]}s")
    return f"{_number(found[1])} {name}"


def _number(digits: str) -> str:
    whole, _, part = digits.replace(",", "").partition(".")
    if len(whole) > _LONGEST_NUMBER or (len(whole) > 1 and whole[0] == "0"):
        said = " ".join(_say(int(digit)) for digit in whole)
    else:
        said = _say(int(whole))
    return said + (" point " + " ".join(_say(int(digit)) for digit in part) if part else "")


def _plural(words: str) -> str:
    return re.sub("y$", "ie", words) + ("es" if words.endswith("x") else "s")


def _say(number: int, to: str = "cardinal") -> str:
    try:
        from num2words import num2words
    except ImportError as error:
        raise ImportError("numbers in words need num2words: pip install 'solami-hf[character]'") from error
    return num2words(number, to=to).replace(",", "")
