/* The 3D stage: figures on a floor, drawn on a plain 2D canvas.

   Figures that come with rotations are drawn by WebGL (mesh_figure.js) and laid over the floor. Without it, or of joints
   alone, the parts of the figures (figure.js) are projected and sorted from far to near, and each is filled with the
   gradient that a lit cylinder of its width would show. */

const FIELD_OF_VIEW = (30 * Math.PI) / 180;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

function convexHull(points) {
  points.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const half = (list) => {
    const chain = [];
    for (const p of list) {
      while (chain.length > 1) {
        const [a, b] = chain.slice(-2);
        if ((b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]) > 0) break;
        chain.pop();
      }
      chain.push(p);
    }
    chain.pop();
    return chain;
  };
  return [...half(points), ...half(points.reverse())];
}

/* Adds the outline around circles [x, y, radius] to the current path of `pen`. */
function traceHull(pen, circles) {
  if (circles.length === 1) {
    pen.arc(circles[0][0], circles[0][1], circles[0][2], 0, 2 * Math.PI);
    return;
  }
  const points = [];
  for (const [x, y, radius] of circles) {
    const steps = Math.min(32, Math.max(10, Math.round(radius * 1.2)));
    for (let i = 0; i < steps; i++) {
      const angle = (2 * Math.PI * i) / steps;
      points.push([x + radius * Math.cos(angle), y + radius * Math.sin(angle)]);
    }
  }
  convexHull(points).forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.closePath();
}

function parseColour(text) {
  const number = parseInt(text.trim().slice(1), 16);
  return [number >> 16, (number >> 8) & 255, number & 255];
}

/* `light` from 0 (in shadow) over 0.6 (the colour itself) to 1 (bright). */
function shade(colour, light) {
  const dark = [20, 24, 48], share = light < 0.6 ? light / 0.6 : (light - 0.6) / 0.4;
  const mixed = colour.map((value, i) => light < 0.6
    ? dark[i] * 0.62 * (1 - share) + value * (0.38 + 0.62 * share) + value * 0.1 * (1 - share)
    : value + (255 - value) * 0.42 * share);
  return `rgb(${mixed.map((value) => Math.min(255, Math.round(value))).join(",")})`;
}

class Stage {
  /* body: the mesh that `figure_data.py` packs, null where only joints are to be shown. */
  constructor(canvas, body = null) {
    this.canvas = canvas;
    this.meshes = body && meshFigures(this, body);
    this.sole = this.meshes ? body.sole : 0.03;
    this.pen = canvas.getContext("2d");
    this.shadows = document.createElement("canvas");
    this.soft = document.createElement("canvas");
    this.drawnFigures = 0;
    this.yawOffset = 0;
    this.readColours();
    this.resetView();
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    this.colours = { top: read("--stage-top"), bottom: read("--stage-bottom"), floor: read("--stage-floor"), grid: read("--stage-grid"),
      shadow: Number(read("--stage-shadow")), label: read("--stage-label"), labelText: read("--stage-label-text") };
    this.tones = {};
    for (const role of ["user", "character"]) {
      this.tones[role] = {};
      for (const tone of ["body", "legs", "shoes", "skin", "head", "hair", "eye", "mouth"]) {
        this.tones[role][tone] = parseColour(read(`--${role}-${tone}`) || read(`--${role}-skin`));
      }
      this.tones[role].hand = this.tones[role].skin;
    }
  }

  resetView() {
    this.yawOffset = -0.3; // so that the character's face is seen
    this.pitch = 0.17;
    this.zoom = 1;
  }

  orbit(dx, dy) {
    this.yawOffset -= dx;
    this.pitch = Math.min(1.35, Math.max(-0.02, this.pitch + dy));
  }

  zoomBy(factor) {
    this.zoom = Math.min(4, Math.max(0.4, this.zoom * factor));
  }

  /* Lets pointer, wheel and keys turn the view; `changed` is called after each turn. */
  listen(changed) {
    const canvas = this.canvas, note = element("p", "figure-note");
    if (this.meshes) listenForAvatars(this, changed, (text) => {
      note.textContent = text;
      canvas.after(note);
    });
    let held = null;
    canvas.addEventListener("pointerdown", (event) => {
      held = [event.clientX, event.clientY];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!held) return;
      this.orbit((event.clientX - held[0]) * 0.008, (event.clientY - held[1]) * 0.006);
      held = [event.clientX, event.clientY];
      changed();
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { held = null; });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY * 0.0012));
      changed();
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const turns = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.08], ArrowDown: [0, -0.08] };
      if (turns[event.key]) this.orbit(...turns[event.key]);
      else if (event.key === "+" || event.key === "=") this.zoomBy(1.1);
      else if (event.key === "-") this.zoomBy(1 / 1.1);
      else return;
      event.preventDefault();
      changed();
    });
  }

  /* `poses(t)` gives both poses at a time of the round; looks once through the round to know where the camera goes. */
  setRound(duration, poses) {
    const [user, character] = poses(0).map((pose) => [pose[0], 0, pose[2]]);
    let right = normalize(subtract(character, user));
    // performers on one spot give no line to look across, so they are seen from the front
    if (Math.hypot(...subtract(character, user)) < 0.3) right = [1, 0, 0];
    const ahead = cross([0, 1, 0], right);
    this.baseYaw = Math.atan2(ahead[0], ahead[2]);
    this.light = normalize([0, 1, 2].map((i) => -0.55 * right[i] - 0.5 * ahead[i] + [0, 1, 0][i]));
    const boxes = [], lowest = [[], []];
    for (let i = 0; i <= Math.ceil(duration * 10); i++) {
      const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
      poses(i / 10).forEach((pose, who) => {
        let least = Infinity;
        pose.forEach((value, k) => {
          low[k % 3] = Math.min(low[k % 3], value);
          high[k % 3] = Math.max(high[k % 3], value);
          if (k % 3 === 1) least = Math.min(least, value);
        });
        lowest[who].push(least);
      });
      boxes.push([low, high]);
    }
    // the floor lies under the soles of whoever stands lower most of the time, so that a jump leaves it where it is
    const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];
    this.floor = Math.min(median(lowest[0]), median(lowest[1])) - this.sole;
    this.track = boxes.map((_, i) => {
      const near = boxes.slice(Math.max(0, i - 10), i + 11);
      const mean = (pick) => near.reduce((sum, box) => sum + pick(box), 0) / near.length;
      const most = (pick) => near.reduce((best, box) => Math.max(best, pick(box)), 0);
      return { centre: [0, 1, 2].map((k) => mean(([low, high]) => (low[k] + high[k]) / 2)),
        width: most(([low, high]) => Math.hypot(high[0] - low[0], high[2] - low[2])), height: most(([low, high]) => high[1] - low[1]) };
    });
    this.track = this.track.map((_, i) => {
      const near = this.track.slice(Math.max(0, i - 10), i + 11);
      const mean = (pick) => near.reduce((sum, view) => sum + pick(view), 0) / near.length;
      return { centre: [0, 1, 2].map((k) => mean((view) => view.centre[k])), width: mean((view) => view.width), height: mean((view) => view.height) };
    });
  }

  placeCamera(time) {
    const place = Math.min(Math.max(time * 10, 0), this.track.length - 1), first = Math.floor(place), share = place - first;
    const a = this.track[first], b = this.track[Math.min(first + 1, this.track.length - 1)];
    const between = (x, y) => x * (1 - share) + y * share;
    const half = Math.tan(FIELD_OF_VIEW / 2), aspect = this.width / this.height;
    const tall = between(a.height, b.height) / 2 + 0.3, wide = between(a.width, b.width) / 2 + 0.3;
    const distance = (Math.max(tall / half, wide / (half * aspect)) + wide * 0.35) / this.zoom;
    const yaw = this.baseYaw + this.yawOffset, cos = Math.cos(this.pitch), sin = Math.sin(this.pitch);
    this.ahead = [Math.sin(yaw) * cos, -sin, Math.cos(yaw) * cos];
    this.right = normalize(cross(this.ahead, [0, 1, 0]));
    this.up = cross(this.right, this.ahead);
    this.centre = a.centre.map((value, i) => between(value, b.centre[i]));
    this.centre[1] += 0.05;
    this.eye = add(this.centre, this.ahead, -distance);
    this.focal = this.height / 2 / half;
  }

  project(point) {
    const d = subtract(point, this.eye), depth = Math.max(dot(d, this.ahead), 0.05), scale = this.focal / depth;
    return [this.width / 2 + dot(d, this.right) * scale, this.height / 2 - dot(d, this.up) * scale, scale, depth];
  }

  /* actors: [{role, pose, turns, face, name, level}], `level` from 0 to 1 while the actor speaks, else null; `turns`,
     the joints' quaternions, and `face`, its 52 units, are null where they are not known. */
  draw(time, actors) {
    const ratio = Math.min(window.devicePixelRatio || 1, 2), box = this.canvas.getBoundingClientRect();
    this.width = Math.max(1, box.width);
    this.height = Math.max(1, box.height);
    const width = Math.round(this.width * ratio), height = Math.round(this.height * ratio);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    this.placeCamera(time);
    this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.drawGround();
    const skinned = this.meshes && !this.meshes.lost && actors.every((actor) => actor.turns);
    const figures = actors.map((actor) => ({ ...actor, ...figureParts(actor.pose, actor.level ?? 0) }));
    if (this.meshes) this.meshes.canvas.hidden = !skinned;
    if (skinned) this.meshes.draw(this, actors);
    else this.drawParts(figures);
    for (const figure of figures) this.drawLabel(figure);
    this.drawn = skinned ? "mesh" : "parts";
    this.drawnFigures = figures.length;
  }

  drawParts(figures) {
    this.drawShadows(figures);
    const shapes = [];
    for (const figure of figures) {
      for (const part of figure.parts) {
        const circles = part.balls.map(([point, radius]) => {
          const [x, y, scale, depth] = this.project(point);
          return [x, y, radius * scale, depth];
        });
        const depth = circles.reduce((sum, circle) => sum + circle[3], 0) / circles.length - part.lift;
        shapes.push({ circles, depth, tone: part.tone, role: figure.role });
      }
    }
    shapes.sort((a, b) => b.depth - a.depth);
    for (const shape of shapes) this.fillShape(shape);
  }

  fillShape({ circles, tone, role }) {
    const pen = this.pen, colour = this.tones[role][tone];
    const [ax, ay] = circles[0], [bx, by] = circles[circles.length - 1];
    const lx = dot(this.light, this.right), ly = -dot(this.light, this.up), lz = -dot(this.light, this.ahead);
    const length = Math.hypot(bx - ax, by - ay), widest = Math.max(...circles.map((circle) => circle[2]));
    pen.beginPath();
    traceHull(pen, circles);
    if (tone === "eye" || tone === "mouth") {
      pen.fillStyle = `rgb(${colour.join(",")})`;
      pen.fill();
      return;
    }
    if (tone === "head" || tone === "hair" || length < widest * 0.5) {
      const gradient = pen.createRadialGradient(ax + lx * widest * 0.55, ay + ly * widest * 0.55, widest * 0.08, ax, ay, widest * 1.45);
      [0.98, 0.8, 0.52, 0.2].forEach((light, i) => gradient.addColorStop(i / 3, shade(colour, light)));
      pen.fillStyle = gradient;
    } else {
      // across the axis the normal turns from one rim over the viewer to the other rim
      const nx = -(by - ay) / length, ny = (bx - ax) / length;
      const across = circles.map(([x, y, r]) => [(x - ax) * nx + (y - ay) * ny, r]);
      const low = Math.min(...across.map(([s, r]) => s - r)), high = Math.max(...across.map(([s, r]) => s + r));
      const gradient = pen.createLinearGradient(ax + nx * low, ay + ny * low, ax + nx * high, ay + ny * high);
      for (let i = 0; i <= 6; i++) {
        const s = i / 3 - 1, light = s * (nx * lx + ny * ly) + Math.sqrt(1 - s * s) * Math.max(lz, 0.25);
        gradient.addColorStop(i / 6, shade(colour, Math.min(1, Math.max(0, 0.3 + 0.62 * light))));
      }
      pen.fillStyle = gradient;
    }
    pen.fill();
  }

  drawGround() {
    const pen = this.pen;
    const sky = pen.createLinearGradient(0, 0, 0, this.height);
    sky.addColorStop(0, this.colours.top);
    sky.addColorStop(1, this.colours.bottom);
    pen.fillStyle = sky;
    pen.fillRect(0, 0, this.width, this.height);
    const [cx, cy, scale] = this.project([this.centre[0], this.floor, this.centre[2]]);
    const flat = Math.max(0.06, Math.abs(this.ahead[1]));
    pen.save();
    pen.translate(cx, cy);
    pen.scale(1, flat);
    const glow = pen.createRadialGradient(0, 0, 0, 0, 0, 3 * scale);
    glow.addColorStop(0, this.colours.floor);
    glow.addColorStop(1, this.colours.floor.slice(0, 7) + "00");
    pen.fillStyle = glow;
    pen.beginPath();
    pen.arc(0, 0, 3 * scale, 0, 2 * Math.PI);
    pen.fill();
    pen.restore();
    this.drawGrid();
  }

  drawGrid() {
    const pen = this.pen, reach = 4, step = 0.5;
    const cx = Math.round(this.centre[0] / step) * step, cz = Math.round(this.centre[2] / step) * step;
    pen.strokeStyle = this.colours.grid;
    pen.lineWidth = 1;
    for (let line = -reach; line <= reach; line += step) {
      for (let along = -reach; along < reach; along += step) {
        const fade = 1 - Math.hypot(line, along + step / 2) / reach;
        if (fade <= 0) continue;
        for (const [from, to] of [[[line, along], [line, along + step]], [[along, line], [along + step, line]]]) {
          const a = this.project([cx + from[0], this.floor, cz + from[1]]), b = this.project([cx + to[0], this.floor, cz + to[1]]);
          if (a[3] < 0.2 || b[3] < 0.2) continue;
          pen.globalAlpha = fade;
          pen.beginPath();
          pen.moveTo(a[0], a[1]);
          pen.lineTo(b[0], b[1]);
          pen.stroke();
        }
      }
    }
    pen.globalAlpha = 1;
  }

  /* Shadows are drawn small and enlarged again, which softens them in every browser. */
  drawShadows(figures) {
    const [wide, high] = [Math.ceil(this.width / 3), Math.ceil(this.height / 3)];
    [this.shadows.width, this.shadows.height] = [wide, high];
    [this.soft.width, this.soft.height] = [Math.ceil(wide / 3), Math.ceil(high / 3)];
    const pen = this.shadows.getContext("2d");
    pen.scale(1 / 3, 1 / 3);
    for (const figure of figures) {
      for (const part of figure.parts) {
        if (part.small) continue;
        const points = [];
        for (const [point, radius] of part.balls) {
          const fall = (point[1] - this.floor) / this.light[1];
          const [x, , z] = add(point, this.light, -fall);
          for (let i = 0; i < 10; i++) {
            const angle = (i * Math.PI) / 5;
            points.push(this.project([x + radius * Math.cos(angle), this.floor, z + radius * Math.sin(angle)]));
          }
        }
        pen.beginPath();
        convexHull(points).forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
        pen.fill();
      }
    }
    const soft = this.soft.getContext("2d");
    soft.imageSmoothingQuality = "high";
    soft.drawImage(this.shadows, 0, 0, this.soft.width, this.soft.height);
    this.pen.imageSmoothingQuality = "high";
    this.pen.globalAlpha = this.colours.shadow / 2;
    this.pen.drawImage(this.soft, 0, 0, this.width, this.height);
    this.pen.drawImage(this.shadows, 0, 0, this.width, this.height);
    this.pen.globalAlpha = 1;
  }

  /* The name above the head, with bars that follow the voice. */
  drawLabel({ skull, name, role, level }) {
    const pen = this.pen, [x, y] = this.project(skull);
    pen.font = "600 12px system-ui, sans-serif";
    const bars = level === null ? 0 : 24, wide = pen.measureText(name).width + 20 + bars, left = x - wide / 2, top = Math.max(y - 24, 6);
    pen.fillStyle = level === null ? this.colours.label : `rgb(${this.tones[role].body.join(",")})`;
    pen.beginPath();
    pen.roundRect(left, top, wide, 22, 11);
    pen.fill();
    pen.fillStyle = level === null ? this.colours.labelText : "#fff";
    pen.textBaseline = "middle";
    pen.fillText(name, left + 10, top + 11.5);
    for (let bar = 0; bar < (bars ? 4 : 0); bar++) {
      const tall = 3 + 11 * level * [0.6, 1, 0.8, 0.5][bar];
      pen.fillRect(left + wide - bars + bar * 4.5 - 2, top + 11 - tall / 2, 2.5, tall);
    }
  }
}
