"""The report page: what goes into the file, and whether a real browser plays it."""

import base64
import json
import re
import shutil
import time
import wave

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from solami_hf.report.page import (
    Conversation,
    Curve,
    MetricRow,
    Performer,
    Scene,
    Stage,
    decode_joints,
    duration_in_words,
    encode_joints,
    write_report,
)


def write_tone(path, seconds=1.0, channels=1, width=2):
    frames = int(16000 * seconds)
    tone = (8000 * np.sin(np.arange(frames * channels) / 9)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(16000)
        file.writeframes(tone.tobytes() if width == 2 else bytes(frames * channels * width))
    return path


def figure(frames=45, z=0.0):
    """A stick of 55 joints, 1.7 m tall, that sways to the side by half a metre."""
    joints = np.zeros((frames, 55, 3))
    joints[:, :, 1] = np.linspace(0.05, 1.7, 55)
    joints[:, :, 0] = np.linspace(-0.2, 0.2, 55)[None] + 0.5 * np.linspace(0, 1, frames)[:, None]
    joints[:, :, 2] = z
    return joints


def scene(audio=None, title="Round 1", **changes):
    user = Performer("Robin", figure(z=1.6), 30.0, audio, "Hello there!", "wave")
    character = Performer("Samantha", figure(60), 30.0, audio, "Hi, nice to see you.", "bow")
    return Scene(title, "a greeting", user, character, **{"expected": "hi nice to see you", **changes})


def write_page(path, audio=None, **changes):
    sections = {
        "conversations": [Conversation("First meeting", "", [scene(audio), scene(audio, "Round 2")])],
        "curves": [Curve("Loss", "step", "loss", {"train": [(0, 3.0), (1, 2.0), (2, 1.5)]})],
        "metrics": [MetricRow("accuracy", 0.9371, "at least 0.9", True, "How often it is right.", "Understanding")],
        "stages": [Stage("corpus", 75.0, "412 clips")],
        "next_steps": ["Train longer."],
    }
    return write_report(path, title="A run", lead="What was made.", **{**sections, **changes})


def page_data(path):
    html = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="report-data">(.*?)</script>', html, re.S)[1])


def test_joints_survive_to_half_a_millimetre():
    joints = np.random.default_rng(0).uniform(-3, 3, (4, 55, 3))
    assert np.abs(decode_joints(encode_joints(joints)) - joints).max() <= 0.0005 + 1e-9
    assert encode_joints(np.full((1, 55, 3), 1.5))[:4] == base64.b64encode(b"\xdc\x05\xdc")[:4].decode()


def test_page_carries_joints_sound_and_texts(tmp_path):
    audio = write_tone(tmp_path / "hello.wav")
    path = write_page(tmp_path / "deep" / "report.html", audio)
    first = page_data(path)["conversations"][0]["scenes"][0]
    np.testing.assert_allclose(decode_joints(first["user"]["joints"]), figure(z=1.6), atol=0.00051)
    assert base64.b64decode(first["character"]["audio"]) == audio.read_bytes()
    assert (first["user"]["frames"], first["user"]["audioSeconds"], len(first["user"]["peaks"])) == (45, 1.0, 25)
    assert max(first["user"]["peaks"]) == 100
    assert first["correct"] is True
    html = path.read_text(encoding="utf-8")
    assert "0.937" in html and "1 min 15 s" in html and "Train longer." in html
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_page_asks_nothing_of_the_network(tmp_path):
    html = write_page(tmp_path / "report.html").read_text(encoding="utf-8")
    addresses = re.findall(r"""https?://[^\s"'<)]*""", html)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"""<link|<script[^>]+src|@import|url\(""", html)
    assert "default-src 'none'" in html


def test_texts_cannot_become_markup(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>"
    conversation = Conversation(evil, evil, [scene(title=evil)])
    html = write_page(tmp_path / "report.html", conversations=[conversation], next_steps=[evil]).read_text("utf-8")
    assert "<img" not in html
    assert page_data(tmp_path / "report.html")["conversations"][0]["title"] == evil


def test_empty_sections_are_left_out(tmp_path):
    path = write_report(tmp_path / "report.html", title="A run", lead="Nothing yet.")
    html = path.read_text("utf-8")
    assert "<section" not in html and 'class="tiles"' not in html


def test_expected_answers_are_judged_by_their_words():
    assert scene().is_correct is True
    assert scene(expected="Goodbye.").is_correct is False
    assert scene(expected=None).is_correct is None
    assert scene(expected="Goodbye.", correct=True).is_correct is True


def test_long_curves_are_thinned_out(tmp_path):
    curve = Curve("Loss", "step", "loss", {"train": [(step, 2.0) for step in range(5000)]})
    points = page_data(write_page(tmp_path / "report.html", curves=[curve]))["curves"][0]["series"][0]["points"]
    assert len(points) == 600 and {y for _, y in points} == {2.0}


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (59.97, "1 min 00 s"), (245, "4 min 05 s"), (7500, "2 h 05 min")]
)
def test_duration_in_words(seconds, text):
    assert duration_in_words(seconds) == text


@pytest.mark.parametrize(
    ("joints", "message"),
    [
        (np.zeros((5, 22, 3)), r"shape \(5, 22, 3\)"),
        (np.zeros((0, 55, 3)), r"shape \(0, 55, 3\)"),
        (np.full((5, 55, 3), np.nan), "NaN"),
        (np.full((5, 55, 3), 900.0), "900.0 m from the origin"),
    ],
)
def test_bad_joints_are_refused(joints, message):
    with pytest.raises(ValueError, match=message):
        Performer("Robin", joints, 30.0)


def test_bad_sound_is_refused(tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    bad = {
        "text.wav": "no PCM WAV",
        write_tone(tmp_path / "stereo.wav", channels=2).name: "2 channel",
        write_tone(tmp_path / "bytes.wav", width=1).name: "8 bit",
        write_tone(tmp_path / "empty.wav", seconds=0).name: "0 bytes",
    }
    for name, message in bad.items():
        with pytest.raises(ValueError, match=message):
            Performer("Robin", figure(), 30.0, tmp_path / name)
    with pytest.raises(FileNotFoundError, match="missing.wav"):
        Performer("Robin", figure(), 30.0, tmp_path / "missing.wav")


def test_other_bad_input_is_refused():
    with pytest.raises(ValueError, match="fps"):
        Performer("Robin", figure(), 0)
    with pytest.raises(ValueError, match="at least one scene"):
        Conversation("empty", "", [])
    with pytest.raises(ValueError, match="'train'.*NaN"):
        Curve("Loss", "step", "loss", {"train": [(0, float("nan"))]})
    with pytest.raises(ValueError, match="at least one point"):
        Curve("Loss", "step", "loss", {"train": []})
    with pytest.raises(ValueError, match="at least one series"):
        Curve("Loss", "step", "loss", {})
    with pytest.raises(ValueError, match="'fid' is nan"):
        MetricRow("fid", float("nan"))
    with pytest.raises(ValueError, match="seconds"):
        Stage("corpus", -1.0)


def test_failed_write_leaves_the_old_page(tmp_path):
    path = write_page(tmp_path / "report.html")
    before = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_page(path, next_steps=["\ud800"])
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"],
        )
        yield opened
        opened.close()


@pytest.fixture
def page(browser, tmp_path):
    """The report in a real browser; afterwards, nothing may have been logged or asked of the network."""
    path = write_page(tmp_path / "report.html", write_tone(tmp_path / "hello.wav", 1.4))
    complaints = []
    view = browser.new_page(viewport={"width": 1280, "height": 900})
    view.on("console", lambda message: complaints.append(message.text))
    view.on("pageerror", lambda error: complaints.append(str(error)))
    view.on("request", lambda request: complaints.append(request.url))
    view.goto(path.as_uri())
    wait_until(view, "window.solamiReport?.ready && solamiReport.state().drawnFigures === 2")
    yield view
    view.close()
    assert [line for line in complaints if not line.startswith(("file:", "blob:"))] == []


def wait_until(page, condition, seconds=120):
    """Playwright's own `wait_for_function` needs eval, which the page's content security policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(f"!!({condition})"):
        assert time.monotonic() < end, f"not within {seconds} s: {condition}; {state(page)}"
        page.wait_for_timeout(20)


def state(page):
    return page.evaluate("solamiReport.state()")


def stage_pixels(page, seconds):
    """The stage at a time of the round as (height, width, 4)."""
    text, width = page.evaluate(
        """async (seconds) => {
          solamiReport.seek(seconds);
          for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
          const stage = document.getElementById("stage");
          const copy = new OffscreenCanvas(stage.width, stage.height).getContext("2d", { willReadFrequently: true });
          copy.drawImage(stage, 0, 0);
          const bytes = copy.getImageData(0, 0, stage.width, stage.height).data;
          let text = "";
          for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
          return [btoa(text), stage.width];
        }""",
        seconds,
    )
    return np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(-1, width, 4)


@pytest.mark.system("chromium")
def test_browser_keeps_the_words_of_a_table_in_their_cells(browser, tmp_path):
    listening = "Listening: points lost with the wrong audio"
    metrics = [
        MetricRow("Right action", "94.1% (89.6 to 97.1)", "at least 90%", True, "A word. " * 12, "Tasks"),
        MetricRow(listening, "-184.3 points (-176.9 to -191.7)", "at least 50 points", False, "Words.", "Controls"),
        MetricRow("Perplexity", "no items", None, None, "Incomprehensibilities.", "Controls"),
    ]
    view = browser.new_page()
    view.goto(write_page(tmp_path / "report.html", conversations=[], curves=[], metrics=metrics).as_uri())
    for width in (320, 480, 641, 700, 821, 1000, 1400, 2560):
        view.set_viewport_size({"width": width, "height": 900})
        spilt = view.evaluate(
            """() => [...document.querySelectorAll("th, td")].flatMap((cell) => {
              if (!cell.getClientRects().length || !cell.textContent) return [];
              const words = document.createRange();
              words.selectNodeContents(cell);
              const [inner, outer] = [words.getBoundingClientRect(), cell.getBoundingClientRect()];
              return inner.left < outer.left - 0.5 || inner.right > outer.right + 0.5 ? [cell.textContent] : [];
            })"""
        )
        assert (width, spilt) == (width, [])
        assert view.evaluate("document.documentElement.scrollWidth") <= width
    view.close()


@pytest.mark.system("chromium")
def test_browser_draws_both_figures_and_moves_them(page):
    start, later, answer = (stage_pixels(page, seconds).astype(int) for seconds in (0, 1.2, 3.0))
    orange = (start[..., 0] > start[..., 2] + 60).sum()
    blue = (start[..., 2] > start[..., 0] + 60).sum()
    assert orange > 500 and blue > 500
    assert (np.abs(later - start).max(axis=-1) > 30).mean() > 0.005
    assert (np.abs(answer - later).max(axis=-1) > 30).mean() > 0.005
    assert np.array_equal(stage_pixels(page, 0), start)


@pytest.mark.system("chromium")
def test_browser_plays_pauses_and_scrubs(page):
    assert page.evaluate("solamiReport.rounds") == 2
    # the user's 1.5 s, a breath, the character's 2 s, a rest
    assert state(page)["duration"] == pytest.approx(1.5 + 0.4 + 2.0 + 0.6)
    page.click("#play")
    wait_until(page, "solamiReport.state().time > 0.4")
    assert state(page)["playing"] and state(page)["speaker"] == "user"
    assert page.locator(".bubble.user.speaking").count() == 1
    page.keyboard.press("Space")
    wait_until(page, "!solamiReport.state().playing")
    stopped = state(page)["time"]
    page.wait_for_timeout(250)
    assert state(page)["time"] == stopped
    page.locator("#scrub").fill("2.4")
    assert state(page)["time"] == pytest.approx(2.4) and state(page)["speaker"] == "character"
    page.keyboard.press("End")
    wait_until(page, "document.getElementById('clock').textContent === '0:04 / 0:04'")


@pytest.mark.system("chromium")
def test_browser_follows_the_voice(page):
    page.click("#play")
    heard, shown = page.evaluate(
        """async () => {
          const sound = player.voices.user.sound;
          sound.playbackRate = 0.5;  // the clock alone would be at twice the time
          while (sound.currentTime < 0.8) await new Promise(requestAnimationFrame);
          return [sound.currentTime, solamiReport.state().time];
        }"""
    )
    assert shown == pytest.approx(heard, abs=0.35)


@pytest.mark.system("chromium")
def test_browser_plays_the_whole_conversation(page):
    page.click("#next")
    assert state(page)["round"] == 1
    page.click("#play-all")
    assert state(page)["round"] == 0
    page.evaluate("solamiReport.seek(4.3)")
    wait_until(page, "solamiReport.state().round === 1 && solamiReport.state().playing")
    page.evaluate("solamiReport.seek(4.4)")
    wait_until(page, "!solamiReport.state().playing")
    assert state(page)["round"] == 1


@pytest.mark.system("chromium")
def test_browser_plays_an_original_and_its_copy_at_once(browser, tmp_path):
    conversation = Conversation("Held-out clips", "", [scene(), scene(title="Round 2")], together=True)
    path = write_page(tmp_path / "report.html", conversations=[conversation])
    assert "valid answers" not in path.read_text("utf-8") and "Both move at once." in path.read_text("utf-8")
    view = browser.new_page(viewport={"width": 1280, "height": 900})
    view.goto(path.as_uri())
    wait_until(view, "window.solamiReport?.ready")
    assert state(view)["duration"] == pytest.approx(2.0 + 0.6)  # the longer clip and a rest
    view.evaluate("solamiReport.seek(1)")
    assert state(view)["speaker"] is None
    assert view.evaluate("JSON.stringify(player.starts)") == '{"user":0,"character":0}'
    view.close()


@pytest.mark.system("chromium")
def test_browser_turns_the_stage_and_names_its_buttons(page):
    before = stage_pixels(page, 0).copy()
    stage = page.locator("#stage")
    stage.drag_to(stage, source_position={"x": 300, "y": 200}, target_position={"x": 420, "y": 220})
    assert not np.array_equal(stage_pixels(page, 0), before)
    page.click("#reset-view")
    assert np.array_equal(stage_pixels(page, 0), before)
    names = page.evaluate("[...document.querySelectorAll('button')].map((b) => b.ariaLabel || b.textContent.trim())")
    assert len(names) > 10 and all(names)
    assert page.locator("#curves svg path.series").count() == 1
