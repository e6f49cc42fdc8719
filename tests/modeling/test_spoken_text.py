"""Text as it is written to what a reader would say."""

import sys

import pytest

from solami_hf.modeling.talker.spoken_text import expand_text, spoken_sentences, spoken_text

SPOKEN = {
    "Hello, World!": "hello, world!",
    "I'm 25 years old.": "i'm twenty-five years old.",
    "It's 5:30 p.m., not 10:05 or 12:00": "it's five thirty pee em, not ten oh five or twelve o'clock",
    "the 3rd of May 2024, 2000.": "the third of may twenty twenty-four, two thousand.",
    "in the 1990s and the '60s": "in the nineteen nineties and the sixties",
    "1,234.5 or 3.14": "one thousand two hundred and thirty-four point five or three point one four",
    "$5.50, £1 and €0.99": "five dollars and fifty cents, one pound and ninety-nine cents",
    "$3 million": "three million dollars",
    "5-10 km and 1 kg at -5°": "five to ten kilometers and one kilogram at minus five degrees",
    "50% of it & more": "fifty percent of it and more",
    "Dr. Smith and Mrs. Jones, e.g. no. 7": "doctor smith and misses jones, for example number seven",
    "The FBI’s TVs, NASA": "the eff bee eye's tee vees, nasa",
    "OK, I said NO": "ok, i said no",
    "007 or 1234567890123": "zero zero seven or one two three four five six seven eight nine zero one two three",
    "“Café” — naïve…": "cafe, naive.",
    "*waves* 😀 (hi)": "waves hi",
    "What?!  Really...": "what! really.",
    "see https://example.org/x now": "see now",
    "'quoted' don't rock 'n' roll": "quoted don't rock n roll",
    "well-known": "well-known",
    "two\nlines": "two lines",
    "...": "",
    "": "",
}


@pytest.mark.parametrize(("written", "spoken"), SPOKEN.items())
def test_spoken(written, spoken):
    assert spoken_text(written) == spoken


@pytest.mark.parametrize("spoken", SPOKEN.values())
def test_spoken_text_is_spoken_as_it_is(spoken):
    assert spoken_text(spoken) == spoken


SENTENCES = {
    "I am Ada. Nice to meet you": ["I am Ada.", "Nice to meet you"],
    "Hi! I am Ada, a baker. “What about you?” Well...": ["Hi! I am Ada, a baker.", "“What about you?”", "Well..."],
    "We met Dr. Smith and J. Doe, e.g. at 3.5 km. They  left": [
        "We met Dr. Smith and J. Doe, e.g. at 3.5 km.",
        "They left",
    ],
    "No. Yes. No.": ["No. Yes. No."],
    "  ": [],
}


@pytest.mark.parametrize(("text", "sentences"), SENTENCES.items())
def test_sentences(text, sentences):
    assert spoken_sentences(text) == sentences
    assert [part for sentence in sentences for part in spoken_sentences(sentence)] == sentences
    for end in range(len(text)):  # what is said stays as it is when more is written
        known = spoken_sentences(text[:end], ended=False)
        assert known == sentences[: len(known)]
    assert spoken_sentences(text, ended=False) == sentences[:-1]


def test_capitals_stay_for_other_readers():
    assert expand_text("Meet Anna at 9, OK?") == "Meet Anna at nine , OK?"


def test_missing_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "num2words", None)
    assert spoken_text("none") == "none"
    with pytest.raises(ImportError, match=r"num2words: pip install 'solami-hf\[character\]'"):
        spoken_text("7")
