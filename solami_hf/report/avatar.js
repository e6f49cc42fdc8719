/* The user's own avatar, a .vrm that is dropped onto the stage or chosen, in the place of the character's mesh. It stays in the browser. */

/* Expressions of a VRM that has none with the face units' names, and the units that they are the mean of. */
const PRESETS = { aa: ["jawOpen"], ou: ["mouthPucker"], oh: ["mouthFunnel"], ee: ["mouthStretchLeft", "mouthStretchRight"],
  happy: ["mouthSmileLeft", "mouthSmileRight"], blinkLeft: ["eyeBlinkLeft"], blinkRight: ["eyeBlinkRight"] };

class Avatar {
  /* The avatar of a file; an Error where it is no VRM. */
  static async read(file) {
    const loader = new THREE.GLTFLoader();
    loader.register((parser) => new THREE.VRMLoaderPlugin(parser));
    const { vrm } = (await loader.parseAsync(await file.arrayBuffer(), "")).userData;
    if (!vrm) throw new Error("it is a glTF without a VRM's humanoid");
    return new Avatar(vrm);
  }

  constructor(vrm) {
    this.vrm = vrm;
    this.mirrored = vrm.meta.metaVersion === "0"; // it faces -z, and so do its rotations
    THREE.VRMUtils.rotateVRM0(vrm);
    this.figure = vrm.scene;
    this.figure.traverse((node) => Object.assign(node, { castShadow: true, frustumCulled: false }));
    this.height = vrm.humanoid.normalizedRestPose.hips.position[1];
  }

  bone(name) {
    return this.vrm.humanoid.getNormalizedBoneNode(name);
  }

  /* Poses by the joints' quaternions in the world; a bone that is missing leaves its turn to its children. */
  pose({ parents, rest, sole, bones, mesh }, { pose, turns, face }, floor, seconds) {
    const { mirrored } = this, nodes = bones.map((name) => this.bone(name));
    const aside = ([x, y, z, w]) => new THREE.Quaternion(mirrored ? -x : x, y, mirrored ? -z : z, w);
    nodes.forEach((node, joint) => {
      if (!node) return;
      let parent = parents[joint];
      while (parent >= 0 && !nodes[parent]) parent = parents[parent];
      node.quaternion.copy(aside(turnOf(turns, joint)));
      if (parent >= 0) node.quaternion.premultiply(aside(turnOf(turns, parent)).invert());
    });
    const standing = sole - rest[31]; // the pelvis above the floor
    const side = mirrored ? -1 : 1;
    nodes[0].position.set(side * pose[0], floor + (pose[1] - floor) * (this.height / standing), side * pose[2]);
    this.express(mesh.names, face ?? []);
    this.vrm.update(Math.min(0.1, Math.max(0, seconds - (this.seconds ?? seconds))));
    this.seconds = seconds;
  }

  express(names, face) {
    const { expressionManager: manager } = this.vrm;
    if (!manager) return;
    const value = (name) => face[names.indexOf(name)] ?? 0;
    if (manager.getExpression("jawOpen")) for (const name of names) manager.setValue(name, value(name));
    else for (const [name, units] of Object.entries(PRESETS)) manager.setValue(name, units.reduce((sum, unit) => sum + value(unit), 0) / units.length);
  }
}

/* Lets a file be dropped onto the stage or chosen by a button on it; `changed` is called when its avatar is there, `tell`
   with what went wrong. */
function listenForAvatars(stage, changed, tell) {
  const wear = async (file) => {
    if (!file) return;
    try {
      stage.meshes.wear(await Avatar.read(file));
      tell("");
      changed();
    } catch (error) {
      tell(`${file.name} cannot be used (${error.message}); give a VRM of version 0 or 1.`);
    }
  };
  stage.canvas.addEventListener("dragover", (event) => event.preventDefault());
  stage.canvas.addEventListener("drop", (event) => {
    event.preventDefault();
    wear(event.dataTransfer.files[0]);
  });
  const input = Object.assign(element("input"), { type: "file", hidden: true }); // phones know no type of a .vrm to accept
  input.addEventListener("change", () => wear(input.files[0]).then(() => { input.value = ""; }));
  const button = Object.assign(element("button", "corner-button avatar-button"), { type: "button", title: "Your own avatar, a .vrm file" });
  button.setAttribute("aria-label", button.title);
  button.innerHTML = '<svg viewBox="0 0 24 24" aria-hidden="true"><circle cx="10" cy="8" r="4"/><path d="M3 20c0-4 3-6 7-6m7-1v7m-3.5-3.5h7"/></svg>';
  button.addEventListener("click", () => input.click());
  stage.canvas.parentNode.append(input, button);
}
