"""Programs that are not ours open our files: Khronos' glTF validator and `@pixiv/three-vrm` in a headless Chromium.

They come by npm and are optional; to run these tests:

    npm install --prefix FOLDER gltf-validator three @pixiv/three-vrm @pixiv/three-vrm-animation
    SOLAMI_NODE_MODULES=FOLDER/node_modules pytest tests/processing/test_avatar_viewers.py
"""

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from solami_hf.processing.motion.body import joint_positions
from solami_hf.processing.motion.face import FACE_UNITS
from solami_hf.processing.motion.formats.gltf import write_gltf
from solami_hf.processing.motion.formats.vrm import write_vrm, write_vrma
from solami_hf.processing.motion.mesh.body_mesh import skinned_vertices
from solami_hf.processing.motion.skeleton_names import JOINT_NAMES
from solami_hf.processing.motion.smplx_motion import SmplxMotion

MODULES = Path(os.environ.get("SOLAMI_NODE_MODULES", "/nowhere"))
CHROMIUM = Path("/usr/bin/chromium")
FRAMES = (0, 7, 15, 29)

VALIDATE = """
const { validateBytes } = require(process.argv[1] + "/gltf-validator");
const bytes = new Uint8Array(require("fs").readFileSync(process.argv[2]));
validateBytes(bytes, { maxIssues: 50 }).then((report) => console.log(JSON.stringify(report.issues)));
"""
PAGE = """<script type="importmap">{"imports": {
  "three": "./node_modules/three/build/three.module.js", "three/addons/": "./node_modules/three/examples/jsm/",
  "@pixiv/three-vrm": "./node_modules/@pixiv/three-vrm/lib/three-vrm.module.js",
  "@pixiv/three-vrm-animation": "./node_modules/@pixiv/three-vrm-animation/lib/three-vrm-animation.module.js"
}}</script><script type="module">
import * as THREE from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { VRMLoaderPlugin, VRMUtils } from "@pixiv/three-vrm";
import { VRMAnimationLoaderPlugin, createVRMAnimationClip } from "@pixiv/three-vrm-animation";
window.check = async (bones, times, vertices) => {
  const loader = new GLTFLoader();
  loader.register((parser) => new VRMLoaderPlugin(parser));
  loader.register((parser) => new VRMAnimationLoaderPlugin(parser));
  const vrm = (await loader.loadAsync("avatar.vrm")).userData.vrm;
  const animation = (await loader.loadAsync("motion.vrma")).userData.vrmAnimations[0];
  const mixer = new THREE.AnimationMixer(vrm.scene);
  mixer.clipAction(createVRMAnimationClip(animation, vrm)).setLoop(THREE.LoopOnce).play().clampWhenFinished = true;
  let mesh;
  vrm.scene.traverse((node) => { if (node.isSkinnedMesh) mesh = node; });
  const out = { meta: vrm.meta, expressions: vrm.expressionManager.expressions.map((e) => e.expressionName),
                lookAt: !!vrm.lookAt, places: [], corners: [] };
  const point = new THREE.Vector3();
  for (const time of times) {
    mixer.setTime(time);
    vrm.update(0);
    vrm.scene.updateMatrixWorld(true);
    mesh.skeleton.update();
    out.places.push(bones.map((bone) => vrm.humanoid.getRawBoneNode(bone).getWorldPosition(point).toArray()));
    out.corners.push(vertices.map((index) => mesh.getVertexPosition(index, point)
      .applyMatrix4(mesh.matrixWorld).toArray()));
  }
  return out;
};
document.title = "ready";
</script>"""


def needs(*packages: str):
    missing = [name for name in packages if not (MODULES / name).is_dir()]
    return pytest.mark.skipif(bool(missing), reason=f"SOLAMI_NODE_MODULES has no {', '.join(missing)}")


@pytest.fixture
def motion():
    """A turning walk of 1.5 m with moving arms, fingers and head; eyes look ahead, which VRMA leaves to look-at."""
    rng = np.random.default_rng(8)
    times = np.linspace(0, 2 * np.pi, 30)[:, None, None]
    poses = 0.4 * np.sin(times + rng.uniform(0, 6, (1, 55, 3)))
    poses[:, 0] *= [0, 3, 0]
    poses[:, 22:25] = 0
    transl = np.linspace([0, 1, 0], [1, 0.95, 1.1], 30)
    return SmplxMotion(transl, poses)


@pytest.fixture
def face():
    return np.random.default_rng(9).random((30, 52), np.float32) * 0.5


@needs("gltf-validator")
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_khronos_validator_finds_no_errors(tmp_path, motion, face):
    write_gltf(tmp_path / "a.glb", motion, face)
    write_gltf(tmp_path / "b.glb", motion, names="mixamo", betas=[0.5, -0.3])
    write_vrm(tmp_path / "c.vrm", motion, face)
    write_vrma(tmp_path / "d.vrma", motion, face)
    write_vrma(tmp_path / "e.vrma", motion, face, presets=True)
    for path in sorted(tmp_path.iterdir()):
        command = ["node", "-e", VALIDATE, str(MODULES.resolve()), str(path)]
        report = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
        assert (report["numErrors"], report["numWarnings"]) == (0, 0), (path.name, report["messages"])


@needs("three", "@pixiv/three-vrm", "@pixiv/three-vrm-animation")
@pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed")
def test_three_vrm_plays_the_motion_as_our_kinematics_do(tmp_path, motion, face):
    sync_api = pytest.importorskip("playwright.sync_api")
    write_vrm(tmp_path / "avatar.vrm")
    write_vrma(tmp_path / "motion.vrma", motion, face)
    (tmp_path / "page.html").write_text(PAGE)
    (tmp_path / "node_modules").symlink_to(MODULES.resolve())
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    vertices = list(range(0, 7900, 97))
    try:
        with sync_api.sync_playwright() as play:
            browser = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
            page = browser.new_page()
            faults = []
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.goto(f"http://127.0.0.1:{server.server_port}/page.html")
            page.wait_for_function("document.title == 'ready'", timeout=120_000)
            call = "([bones, times, vertices]) => window.check(bones, times, vertices)"
            found = page.evaluate(call, [list(JOINT_NAMES["vrm"]), [frame / 30 for frame in FRAMES], vertices])
            browser.close()
    finally:
        server.shutdown()
    assert not faults and found["lookAt"] and found["meta"]["avatarPermission"] == "everyone"
    assert {"aa", "blink", "happy", *FACE_UNITS} <= set(found["expressions"])
    off = np.linalg.norm(np.array(found["places"]) - joint_positions(motion)[list(FRAMES)], axis=-1)
    assert off.max() < 0.001
    skin = skinned_vertices(motion, face=face)[list(FRAMES)][:, vertices]
    assert np.linalg.norm(np.array(found["corners"]) - skin, axis=-1).max() < 0.001
