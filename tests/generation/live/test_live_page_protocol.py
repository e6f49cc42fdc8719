"""What the live page says to a server and does with its answers: resuming, files, recordings, the camera.

The server here is a stand-in that notes what comes; MediaPipe is one that sees a known clip.
"""

import asyncio
import io
import json
import shutil
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse, Response
from playwright.sync_api import sync_playwright

from solami_hf.generation.live.camera_files import CDN, FILES, camera_folder
from solami_hf.generation.live.live_server import camera_headers
from solami_hf.processing.motion.body import joint_positions
from solami_hf.processing.motion.landmarks import landmarks_to_smplx
from solami_hf.processing.motion.smplx_motion import SmplxMotion
from solami_hf.report.live_page import live_page
from solami_hf.report.page import standing_motion

# Holds both hands at the sides; the left forearm, which is at the right of the picture, goes up and down.
DETECTOR = """
window.Holistic = class {
  constructor({ locateFile }) { window.located = locateFile("holistic.binarypb"); this.looks = 0; }
  setOptions() {}
  onResults(see) { this.see = see; }
  async initialize() { await fetch(window.located); }
  async send({ image }) {
    if (!image.videoWidth) throw new Error("no picture");
    const lift = Math.sin(performance.now() / 150), places = { 0: [0, -0.65], 2: [0.03, -0.68], 5: [-0.03, -0.68],
      7: [0.08, -0.65], 8: [-0.08, -0.65], 9: [0.02, -0.6], 10: [-0.02, -0.6], 11: [0.18, -0.47], 12: [-0.18, -0.47],
      13: [0.4, -0.4], 14: [-0.2, -0.2], 15: [0.6, -0.4 - 0.2 * lift], 16: [-0.2, 0.04], 23: [0.1, 0], 24: [-0.1, 0] };
    const world = Array.from({ length: 33 }, (_, i) => ({ x: places[i]?.[0] ?? 0, y: places[i]?.[1] ?? 0,
      z: [2, 5, 9, 10, 0].includes(i) ? -0.1 : 0, visibility: places[i] ? 0.99 : 0.1 }));
    const flat = world.map(({ x, y, visibility }) => ({ x: 0.5 + x / 2, y: 0.7 + y / 2, z: 0, visibility }));
    const hand = Array.from({ length: 21 }, (_, i) => ({ x: 0.8, y: 0.5 - 0.01 * i, z: 0 }));
    this.see({ image, poseLandmarks: flat, leftHandLandmarks: hand, unnamed: world });
  }
};
"""


class StandIn:
    """A server of one answer: two seconds of a tone and of a swaying body."""

    def __init__(self):
        self.events, self.frames, self.turn, self.sockets = [], [], 0, []
        self.knows, self.silent, self.app = True, False, FastAPI()
        idle = standing_motion().to_params().repeat(60, 0)
        idle[:, 0] += np.linspace(0, 0.3, 60)
        self.motion = SmplxMotion.from_params(idle)
        headers = camera_headers(Path("."))
        self.app.get("/")(lambda: HTMLResponse(live_page("camera/"), headers=headers))
        self.app.get("/recordings/{number}")(lambda number: Response(self.recording(), media_type="audio/ogg"))
        self.app.get("/camera/{name}")(lambda name: Response(DETECTOR if name == "holistic.js" else b"", 200,
                                                             media_type=FILES[name]))  # fmt: skip
        self.app.websocket("/ws")(self.talk)

    def recording(self):
        file = io.BytesIO()
        soundfile.write(file, 0.1 * np.sin(np.arange(8000) / 10), 16000, format="OGG")
        return file.getvalue()

    async def talk(self, socket: WebSocket):
        await socket.accept()
        self.sockets.append((socket, asyncio.get_running_loop()))
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if message.get("text") is None:
                    kind, _, seconds = struct.unpack("<BId", message["bytes"][:13])
                    self.frames.append((kind, seconds, message["bytes"][13:]))
                    continue
                event = json.loads(message["text"])
                self.events.append(event)
                await self.react(socket, event)
        except (WebSocketDisconnect, RuntimeError):
            pass

    async def react(self, socket, event):
        async def tell(**fields):
            await socket.send_text(json.dumps(fields))

        if event["type"] == "start":
            await tell(type="ready", version=1, characters={"ada": "Ada"}, character="ada", voices=["heart"],
                       voice="heart", sampling_rate=16000, fps=30, motion=event["motion"], hands_free=True,
                       turn_seconds=30, resume="an-id", resumed=self.knows and event.get("resume") == "an-id",
                       recordings=[{"id": 1, "text": "Hello there."}])  # fmt: skip
            await tell(type="state", state="listening", turn=self.turn)
        elif event["type"] in ("text", "audio_end"):
            self.turn += 1
            await tell(type="state", state="thinking", turn=self.turn)
            if self.silent:
                return
            await tell(type="transcript", turn=self.turn, text=event.get("text", "(heard)"))
            await tell(type="text", turn=self.turn, text="Hello.", sentence_end=True)
            head = struct.pack("<BId", 2, self.turn, 0.0)
            await socket.send_bytes(head + (3000 * np.sin(np.arange(32000) / 8)).astype("<i2").tobytes())
            head = struct.pack("<BId", 4, self.turn, 0.0)
            await socket.send_bytes(head + self.motion.to_params().astype("<f4").tobytes())
            if self.told("start")[-1]["face"]:
                face = np.tile(np.linspace(0, 1, 60)[:, None], (1, 52))
                for part in (0, 1):
                    head = struct.pack("<BId", 8, self.turn, float(part))
                    await socket.send_bytes(head + face[30 * part : 30 * part + 30].astype("<f4").tobytes())
            await tell(type="end", turn=self.turn, valid=True, reason=None, seconds=2.0, timings={})
            await tell(type="state", state="listening", turn=self.turn)
        elif event["type"] == "export":
            await tell(type="file", turn=event["turn"], format=event["format"], name="file", bytes=4)
            await socket.send_bytes(struct.pack("<BId", 7, event["turn"], 0.0) + b"file")

    def close(self, code):
        socket, loop = self.sockets[-1]
        asyncio.run_coroutine_threadsafe(socket.close(code), loop).result(10)

    def told(self, kind):
        return [event for event in self.events if event["type"] == kind]


@pytest.fixture
def server():
    stand_in = StandIn()
    running = uvicorn.Server(uvicorn.Config(stand_in.app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.02)
    stand_in.address = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    yield stand_in
    running.should_exit = running.force_exit = True
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture
def page(server):
    complaints = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--use-fake-device-for-media-stream",
                  "--use-fake-ui-for-media-stream"],
        )  # fmt: skip
        view = browser.new_page(viewport={"width": 1280, "height": 800})
        view.set_default_timeout(60_000)
        view.complain = lambda message: complaints.append(message.text)
        view.on("console", view.complain)
        view.on("pageerror", lambda error: complaints.append(str(error)))
        view.goto(server.address)
        until(view, "state.state === 'listening'")
        yield view
        browser.close()
    assert complaints == []


def until(page, condition, seconds=60):
    end = time.monotonic() + seconds
    while not page.evaluate(f"(() => {{ const state = solamiLive.state(); return ({condition}); }})()"):
        assert time.monotonic() < end, f"{condition}: {page.evaluate('solamiLive.state()')}"
        page.wait_for_timeout(20)


def ask(page, words):
    page.fill("#text", words)
    page.keyboard.press("Enter")


@pytest.mark.system("chromium")
def test_the_mesh_has_the_motion_and_the_face_of_an_answer(page, server):
    assert page.is_visible(".figure-note") and server.told("start")[-1]["face"] is False
    page.remove_listener("console", page.complain)  # a graphics card by software is slow, and says so
    page.goto(server.address + "?figure=mesh")
    until(page, "state.state === 'listening' && state.figure === 'mesh'")
    assert server.told("start")[-1]["face"] is True and server.told("start")[-1]["motion"] == "params"
    ask(page, "hello")
    until(page, "state.ended && state.moving && state.time > 0.8")
    time, told, joints = page.evaluate("""() => {
      live.tick(performance.now() + 1000);
      const { told, bones } = live.stage.meshes.roles.character;
      const joints = bones.map((bone) => bone.matrixWorld.elements.slice(12, 15));
      return [live.voice.time(), told.split(",").map(Number), joints];
    }""")
    assert len(told) == 52 and told[0] == pytest.approx(30 * time / 59, abs=0.02) and told[51] == told[0]
    frame = min(30 * time, 59)
    np.testing.assert_allclose(joints, joint_positions(server.motion)[0] + [0.3 * frame / 59, 0, 0], atol=0.006)


@pytest.mark.system("chromium")
def test_how_much_was_heard_is_told(page, server):
    ask(page, "hello")
    until(page, "state.time > 0.7")
    page.keyboard.press("Escape")
    until(page, "!state.moving && state.state === 'listening' && state.sources === 0")
    (heard,) = server.told("heard")
    assert heard["turn"] == 1 and 0.6 < heard["seconds"] < 1.9
    assert [event["type"] for event in server.events[-2:]] == ["heard", "interrupt"]
    ask(page, "again")  # what has been played to its end was heard
    until(page, "state.turn === 2 && state.ended && state.time > 2 && state.state === 'listening'")
    page.keyboard.press("Escape")
    ask(page, "once more")
    until(page, "state.turn === 3")
    assert len(server.told("heard")) == 1


@pytest.mark.system("chromium")
def test_a_lost_connection_goes_on(page, server):
    ask(page, "hello")
    until(page, "state.ended && state.time > 0.1")
    server.close(1012)
    page.locator("#notice", has_text="goes on").wait_for()
    assert server.told("start")[-1]["resume"] == "an-id"
    assert page.locator(".bubble").count() == 2 and page.is_enabled("#save-talk")
    server.close(1001)
    page.locator("#notice", has_text="being stopped").wait_for()
    page.locator("#notice", has_text="goes on").wait_for()
    server.silent = True
    page.click("#recordings button")
    until(page, "state.turn === 2")
    server.close(1012)
    page.locator(".bubble.user", has_text="connection was lost").wait_for()
    page.locator("#notice", has_text="goes on").wait_for()
    server.knows = False
    server.close(1012)
    page.locator("#notice", has_text="a new one has begun").wait_for()
    assert page.locator(".bubble").count() == 0 and page.is_disabled("#save-talk")


@pytest.mark.system("chromium")
def test_files_of_a_turn_and_of_the_talk(page, server, tmp_path):
    assert page.is_disabled("#save-talk")
    ask(page, "hello")
    until(page, "state.ended && state.state === 'listening'")
    for button, name in [(f".actions >> text={kind}", f"ada-1.{kind}") for kind in ("wav", "npz", "bvh", "glb")] + [
        ("#save-talk", "ada-talk.html")
    ]:
        with page.expect_download() as saved:
            page.click(button)
        saved.value.save_as(tmp_path / name)
        assert saved.value.suggested_filename == name and (tmp_path / name).read_bytes() == b"file"


@pytest.mark.system("chromium")
def test_a_recording_is_played_and_said(page, server):
    page.click("#recordings button")
    until(page, "state.state === 'hearing'")
    page.keyboard.press("Escape")
    assert server.told("interrupt") and not server.frames
    page.click("#recordings button")
    until(page, "state.turn === 1 && state.sources > 0")
    sound = np.frombuffer(b"".join(payload for kind, _, payload in server.frames if kind == 1), "<i2")
    assert 7500 < len(sound) < 8500 and 2500 < np.abs(sound.astype(int)).max() < 4500


@pytest.mark.system("chromium")
def test_who_waits_looks_at_the_user(page):
    def turned():
        joints = np.array(page.evaluate("solamiLive.state().joints")).reshape(55, 3)
        eyes = joints[[23, 24]].mean(0) - joints[15]
        return np.degrees(np.arctan2(eyes[0], eyes[2]))

    page.wait_for_timeout(1500)
    front = turned()
    page.locator("#stage").focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(1500)
    left = turned()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(1500)
    assert abs(front) < 25 and abs(left - turned()) > 25 and (left - front) * (turned() - front) < 0


@pytest.mark.system("chromium")
def test_the_camera_sends_a_body_while_the_user_speaks(page, server):
    assert page.evaluate("window.Holistic === undefined") and page.is_visible("#camera-note")
    page.click("#camera")
    until(page, "state.looks > 3")
    assert page.evaluate("window.located") == "camera/holistic.binarypb" and page.is_visible("#seen")
    seen = """() => new Uint32Array(document.getElementById("seen").getContext("2d")
                .getImageData(0, 0, 240, 180).data.buffer).filter(Boolean).length"""
    assert page.evaluate(seen) > 100 and not server.frames
    page.click("#talk")
    until(page, "state.marks > 45 && state.heard > 16000")
    page.click("#talk")
    until(page, "state.turn === 1")
    frames = [
        (seconds, np.frombuffer(payload, "<f4").reshape(-1, 75, 4))
        for kind, seconds, payload in server.frames
        if kind == 5
    ]
    times = np.concatenate([start + np.arange(len(part)) / 30 for start, part in frames])
    np.testing.assert_allclose(np.diff(times), 1 / 30, atol=1e-6)  # at an even rate
    motion = landmarks_to_smplx(np.concatenate([part for _, part in frames]), 30)
    arms = np.ptp(joint_positions(motion)[:, [20, 21]], axis=0)
    assert arms[0].max() > 0.15 and arms[1].max() < 0.05, arms
    sent = len(server.frames)
    page.wait_for_timeout(300)
    assert len(server.frames) == sent
    page.click("#camera")
    assert page.get_attribute("#camera", "aria-pressed") == "false" and not page.is_visible("#seen")
    for width, height in ((320, 560), (390, 844), (800, 400), (1280, 800)):
        page.set_viewport_size({"width": width, "height": height})
        box = page.locator("#chat").bounding_box()
        assert box["height"] > 50 and page.locator("#send").bounding_box()["y"] < height - 30, (width, height, box)


def test_the_camera_is_allowed_only_where_it_is_on():
    from solami_hf.generation.live.live_server import HEADERS

    assert "wasm" not in HEADERS["Content-Security-Policy"] and "camera" not in HEADERS["Permissions-Policy"]
    near, far = (camera_headers(camera)["Content-Security-Policy"] for camera in (Path("x"), CDN))
    assert "'unsafe-inline' blob: 'wasm-unsafe-eval' 'self';" in near and "jsdelivr" not in near
    assert (
        f"'wasm-unsafe-eval' {CDN};" in far
        and f"connect-src 'self' {CDN}" in far
        and " 'unsafe-eval'" not in near + far
    )


def test_only_the_files_of_the_list_are_served(serve, tmp_path, monkeypatch):
    (tmp_path / "holistic.js").write_text("1")
    (tmp_path / "secret.js").write_text("2")
    client = serve(camera=tmp_path)
    answer = client.get("/camera/holistic.js")
    assert answer.text == "1" and answer.headers["content-type"].startswith("text/javascript")
    for name in ("secret.js", "..%2fsecret.js", "%2e%2e/secret.js", "holistic.js/../secret.js"):
        assert client.get(f"/camera/{name}").status_code in (307, 404), name
    assert serve().get("/camera/holistic.js").status_code == 404


def test_only_the_known_file_is_unpacked(tmp_path, monkeypatch):
    from solami_hf.generation.live import camera_files

    monkeypatch.setattr(camera_files, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(camera_files, "urlopen", lambda *args, **kwargs: io.BytesIO(b"another file"))
    with pytest.raises(ValueError, match="is not the file that is known"):
        camera_folder(tmp_path / "cache")
    monkeypatch.setenv("npm_config_registry", "http://registry.example")
    with pytest.raises(ValueError, match="https://"):
        camera_folder(tmp_path / "cache")
    monkeypatch.delenv("npm_config_registry")
    monkeypatch.setattr(camera_files, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="HF_HUB_OFFLINE"):
        camera_folder(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
