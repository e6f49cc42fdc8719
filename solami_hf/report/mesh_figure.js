/* Figures with skin, by three.js: the free body's mesh on 55 joints, its face, one light rig, a soft shadow.

   They are drawn on a canvas of their own that lies over the stage's, so that nothing is read back from the GPU. */

const CLOTHES = { "74,122,148": "body", "58,62,78": "legs" }; // colours of the mesh that a role has its own for
const BLINK = { every: 4, seconds: 0.2 };

/* Face units of who has no face of its own: it blinks, and the mouth opens with the voice. */
function plainFace(names, seconds, level) {
  const round = Math.floor(seconds / BLINK.every), chance = Math.abs(Math.sin(round * 12.9898) * 43758.5453) % 1;
  const passed = (seconds - BLINK.every * round - chance * (BLINK.every - BLINK.seconds)) / BLINK.seconds;
  const shut = passed > 0 && passed < 1 ? Math.sin(Math.PI * passed) : 0;
  const values = { jawOpen: 0.45 * level, mouthFunnel: 0.25 * level, eyeBlinkLeft: shut, eyeBlinkRight: shut };
  return names.map((name) => values[name] ?? 0);
}

class MeshFigures {
  /* data: what `figure_data.py` packs; context: of WebGL 2, on a canvas of its own; slow: drawn by software, so fewer pixels. */
  constructor(data, context, slow) {
    this.data = data;
    this.share = slow ? 0.6 : 1;
    this.canvas = context.canvas;
    this.renderer = new THREE.WebGLRenderer({ canvas: context.canvas, context, alpha: true, antialias: true });
    this.renderer.setPixelRatio(1);
    this.renderer.setClearColor(0, 0);
    Object.assign(this.renderer.shadowMap, { enabled: true, type: THREE.PCFShadowMap });
    this.scene = new THREE.Scene();
    this.camera = new THREE.PerspectiveCamera((FIELD_OF_VIEW * 180) / Math.PI, 1, 0.1, 60);
    this.light = new THREE.DirectionalLight(0xfff4e8, 2.1);
    this.light.castShadow = true;
    this.light.shadow.mapSize.setScalar(slow ? 512 : 1024);
    Object.assign(this.light.shadow, { radius: 6, bias: -0.0006, normalBias: 0.012 });
    this.rim = new THREE.DirectionalLight(0xdfe8ff, 0.9);
    this.floor = new THREE.Mesh(new THREE.PlaneGeometry(1, 1), new THREE.ShadowMaterial());
    this.floor.rotation.x = -Math.PI / 2;
    this.floor.receiveShadow = true;
    this.scene.add(new THREE.HemisphereLight(0xf4f6ff, 0x8a7f78, 1.5), this.light, this.light.target, this.rim, this.rim.target, this.floor);
    this.roles = {};
    this.lost = false;
    context.canvas.addEventListener("webglcontextlost", () => { this.lost = true; });
    context.canvas.addEventListener("webglcontextrestored", () => { this.lost = false; });
    this.readMesh();
  }

  /* Attributes that all figures share. */
  readMesh() {
    const { mesh } = this.data, scaled = (values, step) => Float32Array.from(values, (value) => value * step);
    const attribute = (values, size, even = false) => new THREE.BufferAttribute(values, size, even);
    this.shared = {
      normal: attribute(scaled(unpack(mesh.normals, Int8Array), 1 / 127), 3),
      skinIndex: attribute(unpack(mesh.joints, Uint8Array), 4),
      skinWeight: attribute(unpack(mesh.weights, Uint8Array), 4, true),
    };
    this.rest = scaled(unpack(mesh.rest, Int16Array), mesh.steps[0]);
    this.faces = attribute(unpack(mesh.faces, Uint16Array), 1);
    this.colours = unpack(mesh.colours, Uint8Array);
    this.rows = unpack(mesh.rows, Uint16Array);
    this.moves = scaled(unpack(mesh.moves, Int16Array), mesh.steps[1]);
  }

  figure(role) {
    const geometry = new THREE.BufferGeometry();
    for (const [name, values] of Object.entries(this.shared)) geometry.setAttribute(name, values);
    geometry.setIndex(this.faces);
    geometry.setAttribute("color", new THREE.BufferAttribute(new Float32Array(this.colours.length), 3));
    geometry.setAttribute("position", new THREE.BufferAttribute(this.rest.slice(), 3));
    const figure = new THREE.SkinnedMesh(geometry, new THREE.MeshStandardMaterial({ vertexColors: true, roughness: 0.78, metalness: 0 }));
    const { rest } = this.data, bones = Array.from({ length: 55 }, () => new THREE.Bone());
    const inverses = bones.map((_, j) => new THREE.Matrix4().makeTranslation(-rest[3 * j], -rest[3 * j + 1], -rest[3 * j + 2]));
    figure.bind(new THREE.Skeleton(bones, inverses), new THREE.Matrix4());
    Object.assign(figure, { castShadow: true, receiveShadow: true, frustumCulled: false });
    this.scene.add(figure);
    return { figure, bones, role, tones: null };
  }

  dress({ figure, role }, tones) {
    const { array } = figure.geometry.attributes.color, known = new Map(), colour = new THREE.Color();
    for (let i = 0; i < array.length; i += 3) {
      const key = this.colours.slice(i, i + 3).join();
      if (!known.has(key)) {
        const rgb = tones[role][CLOTHES[key]] ?? this.colours.slice(i, i + 3);
        known.set(key, colour.setRGB(...Array.from(rgb, (value) => value / 255), THREE.SRGBColorSpace).toArray());
      }
      array.set(known.get(key), i);
    }
    figure.geometry.attributes.color.needsUpdate = true;
  }

  /* Moves the vertices of the face: the units' moves are few, so this is cheaper here than for every vertex on the GPU. */
  express(attribute, face) {
    const { array } = attribute, { ends } = this.data.mesh;
    array.set(this.rest);
    face.forEach((value, unit) => {
      for (let i = unit && value ? ends[unit - 1] : 0; value && i < ends[unit]; i++) {
        for (let k = 0; k < 3; k++) array[3 * this.rows[i] + k] += value * this.moves[3 * i + k];
      }
    });
    attribute.needsUpdate = true;
  }

  /* Draws actors [{role, pose, turns, face}] as the stage's camera sees them. */
  draw(stage, actors) {
    const { renderer, camera, canvas } = this, [width, height] = [stage.canvas.width, stage.canvas.height].map((size) => Math.ceil(size * this.share));
    if (canvas.width !== width || canvas.height !== height) renderer.setSize(width, height, false);
    for (const shown of Object.values(this.roles)) shown.figure.visible = false;
    for (const actor of actors) {
      if (this.avatar && actor.role === "character") this.avatar.pose(this.data, actor, stage.floor, performance.now() / 1000);
      else this.place((this.roles[actor.role] ??= this.figure(actor.role)), actor, stage.tones);
    }
    camera.aspect = stage.width / stage.height;
    camera.position.set(...stage.eye);
    camera.up.set(0, 1, 0);
    camera.lookAt(...stage.centre);
    camera.updateProjectionMatrix();
    const reach = Math.max(1.3, ...actors.map(({ pose }) => 1.2 + Math.hypot(pose[0] - stage.centre[0], pose[2] - stage.centre[2])));
    for (const [light, way] of [[this.light, stage.light], [this.rim, [-stage.light[0], 0.5, -stage.light[2]]]]) {
      light.position.set(...add(stage.centre, way, 5));
      light.target.position.set(...stage.centre);
    }
    Object.assign(this.light.shadow.camera, { left: -reach, right: reach, top: reach, bottom: -reach, near: 1, far: 12 });
    this.light.shadow.camera.updateProjectionMatrix();
    this.floor.scale.setScalar(2.6 * reach);
    this.floor.position.set(stage.centre[0], stage.floor, stage.centre[2]);
    this.floor.material.opacity = 0.8 * stage.colours.shadow;
    renderer.render(this.scene, camera);
  }

  /* Takes an avatar (avatar.js) for the character. */
  wear(avatar) {
    if (this.avatar) {
      this.scene.remove(this.avatar.figure);
      THREE.VRMUtils.deepDispose(this.avatar.figure);
    }
    this.avatar = avatar;
    this.scene.add(avatar.figure);
  }

  place(shown, { pose, turns, face }, tones) {
    if (shown.tones !== tones) this.dress(shown, tones);
    Object.assign(shown, { tones });
    const at = new THREE.Vector3(), turn = new THREE.Quaternion(), one = new THREE.Vector3(1, 1, 1);
    shown.bones.forEach((bone, j) => bone.matrixWorld.compose(at.fromArray(pose, 3 * j), turn.fromArray(turns, 4 * j), one));
    shown.figure.visible = true;
    const told = face?.join() ?? "";
    if (told !== shown.told) this.express(shown.figure.geometry.attributes.position, face ?? []);
    shown.told = told;
  }
}

/* Who draws for a WebGL context: the name that the browser tells. */
function rendererName(context) {
  const plain = context.getParameter(context.RENDERER), told = plain === "WebKit WebGL" && context.getExtension("WEBGL_debug_renderer_info");
  return told ? context.getParameter(told.UNMASKED_RENDERER_WEBGL) : plain;
}

/* The figures for a stage; null, and then the page says so, where the browser has no WebGL, or only a slow one without a
   graphics card. `figure=mesh` in the page's address takes the slow one too. */
function meshFigures(stage, data) {
  const address = new URL(location.href), wanted = address.searchParams.get("figure") === "mesh", canvas = element("canvas", "figures");
  const context = canvas.getContext("webgl2", { alpha: true, antialias: !wanted, powerPreference: "low-power" });
  const slow = context && /swiftshader|llvmpipe|softpipe|software|basic render/i.test(rendererName(context));
  if (context && (wanted || !slow)) {
    stage.canvas.after(canvas);
    return new MeshFigures(data, context, slow);
  }
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  const note = element("p", "figure-note", slow ? "A simpler figure, for a browser without a graphics card. " : "A simpler figure, for a browser without WebGL.");
  if (slow) {
    address.searchParams.set("figure", "mesh");
    note.append(Object.assign(element("a", "", "Draw the other one"), { href: address.href }));
  }
  stage.canvas.after(note);
  return null;
}
