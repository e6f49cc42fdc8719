"""The skinned figure of the pages in a real browser that draws WebGL by software."""

import base64
import json
import re
import shutil
import struct
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from solami_hf.processing.motion.body import joint_positions
from solami_hf.processing.motion.face import UNIT_INDEX
from solami_hf.processing.motion.formats.gltf import write_gltf
from solami_hf.processing.motion.formats.vrm import write_vrm
from solami_hf.processing.motion.mesh.body_mesh import skinned_vertices
from solami_hf.processing.motion.skeleton_names import joint_names
from solami_hf.processing.motion.smplx_motion import SmplxMotion
from solami_hf.report.figure_data import decode_params, encode_params, figure_data
from solami_hf.report.page import Conversation, Performer, Scene, standing_motion, write_report
from tests.processing.test_avatar import BAD_BYTES, BAD_DOCUMENTS, glb
from tests.report.test_page import figure, wait_until

FIXTURES = Path(__file__).parents[1] / "fixtures" / "avatars"


def waving(frames=60):
    """The right arm goes up, the whole body turns by more than half a turn, everything else by a little."""
    params = standing_motion().to_params().repeat(frames, 0)
    params[:, 3:] += 0.2 * np.random.default_rng(0).normal(size=156)
    params[:, 4] += np.linspace(0, 4, frames)
    params[:, 3 + 3 * 17 + 2] = np.linspace(1.2, -1.2, frames)
    return SmplxMotion.from_params(params)


def open_mouth(frames=60):
    face = np.zeros((frames, 52), np.float32)
    face[:, UNIT_INDEX["jawOpen"]] = np.linspace(0, 1, frames)
    face[:, UNIT_INDEX["eyeBlinkLeft"]] = 0.5
    return face


@pytest.fixture(scope="module")
def driver():
    with sync_playwright() as running:
        yield running


def chromium(driver, *more):
    args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio", *more]
    return driver.chromium.launch(executable_path=shutil.which("chromium"), args=args)


@pytest.fixture(scope="module")
def browser(driver):
    opened = chromium(driver)
    yield opened
    opened.close()


@pytest.fixture
def report(tmp_path):
    user = Performer.of_motion("Robin", standing_motion((0, 0, 1.5), np.pi), None, "Hello")
    character = Performer.of_motion("Ada", waving(), None, "Hi", face=open_mouth())
    talk = Conversation("A talk", "", [Scene("Round 1", "", user, character)])
    return write_report(tmp_path / "report.html", title="Talk", lead="A wave.", conversations=[talk])


def opened(browser, address):
    """A page, and what it logs apart from that software is slow."""
    complaints, view = [], browser.new_page(viewport={"width": 700, "height": 700})
    view.on("console", lambda message: "ReadPixels" in message.text or complaints.append(message.text))
    view.on("pageerror", lambda error: complaints.append(str(error)))
    view.goto(address)
    wait_until(view, "window.solamiReport?.ready && solamiReport.state().drawnFigures === 2")
    return view, complaints


SHOWN = """(seconds) => {
  solamiReport.seek(seconds);
  player.draw();
  const { canvas, roles } = player.stage.meshes, { figure, bones } = roles.character, point = new THREE.Vector3();
  const copy = new OffscreenCanvas(64, 64).getContext("2d");
  copy.drawImage(canvas, 0, 0, 64, 64);
  const count = figure.geometry.attributes.position.count;
  return { joints: bones.map((bone) => bone.matrixWorld.elements.slice(12, 15)),
    vertices: Array.from({ length: count }, (_, i) => figure.getVertexPosition(i, point).toArray()),
    pixels: [...copy.getImageData(0, 0, 64, 64).data] };
}"""


@pytest.mark.system("chromium")
def test_the_mesh_moves_as_the_motion_and_its_face_do(browser, report):
    assert report.stat().st_size < 6_000_000
    view, complaints = opened(browser, f"{report.as_uri()}?figure=mesh")
    assert view.evaluate("solamiReport.state().figure") == "mesh"
    begins, motion = view.evaluate("player.starts.character"), waving()
    joints, vertices = joint_positions(motion), skinned_vertices(motion, face=open_mouth())
    pictures = []
    for frame in (0, 20, 59):
        shown = view.evaluate(SHOWN, begins + frame / 30)
        np.testing.assert_allclose(shown["joints"], joints[frame], atol=1e-3)
        np.testing.assert_allclose(shown["vertices"], vertices[frame], atol=1e-3)
        pictures.append(np.array(shown["pixels"]).reshape(64, 64, 4))
    alone = skinned_vertices(motion)
    assert np.abs(alone - vertices)[59].max() > 0.01  # the face counts
    for one, other in zip(pictures, pictures[1:], strict=False):
        assert (one[..., 3] > 128).mean() > 0.02
        assert (np.abs(one - other).max(axis=-1) > 30).mean() > 0.005
    half = np.array(view.evaluate(SHOWN, begins + 20.5 / 30)["joints"])
    assert 1e-4 < np.abs(half - joints[20]).max() < np.abs(joints[21] - joints[20]).max()
    assert complaints == []
    view.close()


@pytest.mark.system("chromium")
def test_both_are_dressed_in_their_colours_in_the_light_and_the_dark(browser, report):
    view, complaints = opened(browser, f"{report.as_uri()}?figure=mesh")
    for scheme, shadow in (("light", 0.8 * 0.34), ("dark", 0.8 * 0.75)):
        view.emulate_media(color_scheme=scheme)
        wait_until(view, f"Math.abs(player.stage.meshes.floor.material.opacity - {shadow}) < 1e-6")
        pixels = np.array(view.evaluate(SHOWN, 0.0)["pixels"]).reshape(-1, 4).astype(int)
        solid = pixels[pixels[:, 3] > 200]
        assert (solid[:, 0] > solid[:, 2] + 60).sum() > 20 and (solid[:, 2] > solid[:, 0] + 60).sum() > 20
    assert complaints == []
    view.close()


DROP = """([text, name]) => {
  const held = new DataTransfer();
  held.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name));
  document.getElementById("stage").dispatchEvent(new DragEvent("drop", { dataTransfer: held, cancelable: true }));
}"""
WORN = """() => {
  player.draw();
  const { avatar, data, scene, roles } = player.stage.meshes, at = new THREE.Vector3();
  scene.updateMatrixWorld(true);
  const place = (name) => avatar.vrm.humanoid.getRawBoneNode(name).getWorldPosition(at).toArray();
  const mouth = avatar.vrm.expressionManager.getValue("jawOpen");
  return { joints: data.bones.map(place), mouth, other: roles.character.figure.visible };
}"""


@pytest.mark.system("chromium")
def test_an_avatar_that_is_dropped_moves_instead(browser, report, tmp_path):
    view, complaints = opened(browser, f"{report.as_uri()}?figure=mesh")
    write_vrm(tmp_path / "mine.vrm")
    write_gltf(tmp_path / "none.glb", waving(2))
    files = [("broken.vrm", b"glTF and no more"), ("none.vrm", (tmp_path / "none.glb").read_bytes())]
    for name, content in files:
        view.evaluate(DROP, [base64.b64encode(content).decode(), name])
        view.locator(".figure-note", has_text=f"{name} cannot be used").wait_for()
        assert view.evaluate("player.stage.meshes.avatar === undefined")
    view.evaluate(DROP, [base64.b64encode((tmp_path / "mine.vrm").read_bytes()).decode(), "mine.vrm"])
    wait_until(view, "player.stage.meshes.avatar")
    assert view.inner_text(".figure-note") == ""
    begins, joints = view.evaluate("player.starts.character"), joint_positions(waving())
    for frame in (20, 59):
        view.evaluate("(seconds) => solamiReport.seek(seconds)", begins + frame / 30)
        worn = view.evaluate(WORN)
        np.testing.assert_allclose(worn["joints"], joints[frame], atol=1e-3)
        assert worn["mouth"] == pytest.approx(frame / 59, abs=0.01) and not worn["other"]
    assert complaints == []
    view.close()


STRANGE = {  # what three.js makes an avatar of
    "children that are a number", "circle", "short rotation", "zero rotation", "rotation of words", "short matrix",
    "huge translation", "zero scale", "exploding scales", "lying down", "upside down", "mirrored bone",
    "expression at no node", "expressions of a list", "two bones at one node", "longer than told",
}  # fmt: skip
OUTCOME = """async ([text, name]) => {
  const { meshes } = player.stage, before = meshes.avatar, note = document.querySelector(".figure-note");
  DROPPED
  for (let tries = 0; tries < 300 && meshes.avatar === before && !note?.textContent.includes(name); tries++) {
    await new Promise((done) => setTimeout(done, 10));
  }
  player.draw();
  return [meshes.avatar !== before, document.querySelector(".figure-note")?.textContent ?? ""];
}""".replace("DROPPED", DROP[DROP.index("{") + 1 : DROP.rindex("}")])


@pytest.mark.system("chromium")
def test_malformed_avatars_leave_the_page_as_it_is(browser, report):
    view, complaints = opened(browser, f"{report.as_uri()}?figure=mesh")
    data = (FIXTURES / "boxes1.vrm").read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    worn = set()
    for number, (case, (spoil, _)) in enumerate([*BAD_DOCUMENTS.items(), *BAD_BYTES.items()]):
        bad = spoil(data) if case in BAD_BYTES else glb(spoil(json.loads(data[20 : 20 + size])), data[28 + size :])
        taken, note = view.evaluate(OUTCOME, [base64.b64encode(bad).decode(), f"bad{number}.vrm"])
        assert taken or re.match(rf"bad{number}\.vrm cannot be used \(.+\); give a VRM", note), (case, note)
        worn |= {case} if taken else set()
    assert worn <= STRANGE and number == 55
    assert view.evaluate(OUTCOME, [base64.b64encode(data).decode(), "good.vrm"]) == [True, ""]
    assert [text for text in complaints if "Content Security Policy" not in text] == []  # of data in other files
    view.close()


LIMBS = [("rightUpperLeg", "leftUpperLeg"), ("hips", "neck"), ("neck", "head")]
LIMBS += [(f"{side}{a}", f"{side}{b}") for side in ("left", "right") for a, b in (
    ("UpperLeg", "LowerLeg"), ("LowerLeg", "Foot"), ("UpperArm", "LowerArm"), ("LowerArm", "Hand"))]  # fmt: skip
DIRECTIONS = """(limbs) => {
  player.draw();
  const { avatar: { vrm }, scene } = player.stage.meshes;
  const place = (name) => vrm.humanoid.getRawBoneNode(name).getWorldPosition(new THREE.Vector3());
  scene.updateMatrixWorld(true);
  const ways = limbs.map(([a, b]) => place(b).sub(place(a)).normalize().toArray());
  return { ways, mouth: vrm.expressionManager.getValue("aa"), version: vrm.meta.metaVersion };
}"""


@pytest.mark.system("chromium")
@pytest.mark.parametrize("version", ["0", "1"])
def test_an_avatar_of_another_library_moves_the_right_way_round(browser, report, version):
    """`tests/fixtures/avatars/boxes.cjs` wrote it with @gltf-transform/core; it is chosen by the keyboard."""
    view, complaints = opened(browser, f"{report.as_uri()}?figure=mesh")
    with view.expect_file_chooser() as chooser:
        view.locator(".avatar-button").press("Enter")
    chooser.value.set_files(FIXTURES / f"boxes{version}.vrm")
    wait_until(view, "player.stage.meshes.avatar")
    begins, joints, bones = view.evaluate("player.starts.character"), joint_positions(waving()), joint_names("vrm")
    for frame in (0, 20, 45):
        view.evaluate("(seconds) => solamiReport.seek(seconds)", begins + frame / 30)
        worn = view.evaluate(DIRECTIONS, LIMBS)
        assert (worn["version"], worn["mouth"]) == (version, pytest.approx(frame / 59, abs=0.01))
        for limb, way in zip(LIMBS, worn["ways"], strict=True):
            a, b = (joints[frame, bones.index(bone)] for bone in limb)
            # the arms of its rest pose lie straight and its spine goes straight up, as ours do to 12 degrees
            assert np.dot(way, (b - a) / np.linalg.norm(b - a)) > 0.97, (limb, frame)
    assert complaints == []
    view.close()


@pytest.mark.system("chromium")
def test_without_a_graphics_card_a_simpler_figure_is_drawn(browser, report):
    view, complaints = opened(browser, report.as_uri())
    assert view.evaluate("solamiReport.state().figure") == "parts"
    assert "without a graphics card" in view.inner_text(".figure-note")
    view.click(".figure-note a")
    wait_until(view, "window.solamiReport?.state().figure === 'mesh'")
    assert view.locator(".figure-note").count() == 0 and complaints == []
    # a context that is lost takes the mesh along, until it is back
    view.evaluate("window.loss = player.stage.meshes.renderer.getContext().getExtension('WEBGL_lose_context')")
    for act, figure_now in (("loseContext", "parts"), ("restoreContext", "mesh")):
        view.evaluate(f"loss.{act}()")
        view.wait_for_timeout(200)
        view.evaluate("player.draw()")
        wait_until(view, f"solamiReport.state().figure === '{figure_now}'")
    view.close()


@pytest.mark.system("chromium")
def test_without_webgl_the_page_says_so(driver, report):
    plain = chromium(driver, "--disable-3d-apis")
    view, complaints = opened(plain, f"{report.as_uri()}?figure=mesh")
    assert view.evaluate("solamiReport.state().figure") == "parts" and complaints == []
    assert view.inner_text(".figure-note") == "A simpler figure, for a browser without WebGL."
    plain.close()


def test_rotations_are_packed_to_a_millimetre():
    motion = waving()
    assert np.linalg.norm(motion.poses[-1, 0]) > np.pi  # the long way round
    read = SmplxMotion.from_params(decode_params(encode_params(motion.to_params())))
    assert np.abs(joint_positions(read) - joint_positions(motion)).max() < 1e-3
    assert np.linalg.norm(read.poses, axis=-1).max() < np.pi + 1e-3


def test_a_page_of_joints_alone_carries_no_mesh(tmp_path):
    performers = (Performer(name, figure(), 30.0) for name in ("Robin", "Ada"))
    talk = Conversation("A talk", "", [Scene("Round 1", "", *performers)])
    page = write_report(tmp_path / "page.html", title="", lead="", conversations=[talk]).read_text("utf-8")
    assert len(page) < 400_000 and "WebGLRenderer" not in page.replace("THREE.WebGLRenderer", "")
    data = json.loads(re.search(r'id="report-data">(.*?)</script>', page, re.S)[1])
    assert "body" not in data


def test_the_packed_body_is_small_and_three_is_named():
    assert len(json.dumps(figure_data())) < 700_000
    folder = resources.files("solami_hf.report") / "three"
    for name, told in (
        ("README.md", "three) 0.187.0"),
        ("README.md", "three-vrm) 3.5.5"),
        ("LICENSE.txt", "pixiv Inc."),
        ("three.min.js", '"187"'),
    ):
        assert told in (folder / name).read_text("utf-8")


def test_rotations_and_faces_of_another_form_are_refused():
    with pytest.raises(ValueError, match=r"`params` of performer 'Ada' .* \(3, 159\); expected \(45, 159\)"):
        Performer("Ada", figure(), 30.0, params=np.zeros((3, 159)))
    with pytest.raises(ValueError, match="`params` of performer 'Ada' contains NaN"):
        Performer("Ada", figure(), 30.0, params=np.full((45, 159), np.nan))
    with pytest.raises(ValueError, match=r"`face` of performer 'Ada' has shape \(3, 51\)"):
        Performer("Ada", figure(), 30.0, face=np.zeros((3, 51)))
