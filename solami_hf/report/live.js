/* The live page: a microphone and words to `solami serve`, a voice that is played without gaps, and a body on its clock.

   docs/serving.md tells the messages. An answer's second 0 is a time of the audio clock (Voice.zero); the pose is the
   one of the moment that is heard. Where a piece comes too late, that time is moved, and voice and body wait together. */

const SIZE = 165, HEAD_BYTES = 13, SOUND_IN = 1, SOUND_OUT = 2, PARAMS_OUT = 4, LANDMARKS_IN = 5, FILE_OUT = 7, FACE_OUT = 8;
const BLEND = 0.4; // seconds from the idle pose into a motion and back
const SHORT_PRESS = 350; // ms: a press that is shorter keeps the microphone open until the next one
const MOST_KEPT = 30; // answers that can be played again
const RETRIES = [500, 8000]; // ms: the first and the longest wait before a lost connection is tried again

function saveFile(blob, name) {
  const link = element("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/* One answer as it comes: its motion, its words, and when what came. */
class Answer {
  constructor(number, asked) {
    Object.assign(this, { number, asked, fps: 30, frames: 0, params: new Float32Array(PARAMS * 300), face: [], sounds: [], firsts: {}, ended: false, cut: false });
  }

  add(params) {
    const length = PARAMS * this.frames + params.length;
    if (length > this.params.length) {
      const larger = new Float32Array(2 * length);
      larger.set(this.params);
      this.params = larger;
    }
    this.params.set(params, PARAMS * this.frames);
    this.frames = length / PARAMS;
  }

  came(part) {
    this.firsts[part] ??= (performance.now() - this.asked) / 1000;
  }
}

class Live {
  constructor(body, idle, camera) {
    this.find = (id) => document.getElementById(id);
    this.body = body;
    this.idle = localPose(idle);
    this.gaze = new Gaze(body);
    this.camera = camera ? new Camera(camera, this.find("seen"), (frames, seconds) => this.sendMarks(frames, seconds)) : null;
    this.marks = 0;
    this.shown = this.from = this.idle;
    this.joints = placed(body, this.idle).pose;
    this.switched = -1;
    this.moving = false;
    this.state = "connecting";
    this.talking = this.latched = this.handsFree = false;
    this.retries = 0;
    this.choices = {};
    this.stage = new Stage(this.find("stage"), body);
    this.stage.setRound(0, () => [this.joints, this.joints]);
    this.view();
    this.listen();
    this.connect();
    this.tick = this.tick.bind(this);
    requestAnimationFrame(this.tick);
  }

  view() {
    this.stage.resetView();
    this.stage.yawOffset = -0.12;
    this.stage.pitch = 0.08;
  }

  /* --- connection ------------------------------------------------------------------------------------------------ */

  connect() {
    const address = new URL("ws", location.href), token = new URL(location.href).searchParams.get("token");
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.search = token === null ? "" : `token=${encodeURIComponent(token)}`;
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.addEventListener("open", () => this.begin(this.resume));
    this.socket.addEventListener("message", ({ data }) => {
      if (typeof data === "string") this.take(JSON.parse(data));
      else this.takeFrame(data);
    });
    this.socket.addEventListener("close", (event) => this.lost(event));
  }

  lost({ code, reason }) {
    this.cut();
    if (this.answer?.user.textContent === "…") this.answer.user.textContent = "(the connection was lost)";
    this.release(true);
    this.handsFree = false;
    this.serve("lost");
    this.showTalking();
    for (const id of ["talk", "hands-free", "file", "text", "send", "character", "voice", "save-talk"]) this.find(id).disabled = true;
    this.showRecordings([]);
    if (code === 1008) {
      this.notice(reason === "idle" ? "Nothing was said for a while, so the conversation has ended. " : `The server ended the conversation (${reason || code}). `, () => {
        this.notice("");
        this.connect();
      });
    } else {
      this.notice(code === 1001 ? "The server is being stopped; trying until it is back." : "The connection is lost; trying again.");
      setTimeout(() => this.connect(), Math.min(RETRIES[1], RETRIES[0] * 2 ** this.retries++));
    }
  }

  send(event) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(typeof event === "object" && !(event instanceof ArrayBuffer) ? JSON.stringify(event) : event);
  }

  sendFrame(kind, values, seconds = 0) {
    const frame = new ArrayBuffer(HEAD_BYTES + values.byteLength), view = new DataView(frame);
    view.setUint8(0, kind);
    view.setFloat64(5, seconds, true);
    new Uint8Array(frame, HEAD_BYTES).set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    this.send(frame);
  }

  sendMarks(frames, seconds) {
    if (!this.talking && !this.handsFree) return;
    this.marks += frames.length / MARKS;
    this.sendFrame(LANDMARKS_IN, frames, seconds);
  }

  /* Begins a conversation, with what was chosen, or goes on with the one of an id. */
  begin(resume = null) {
    this.cut();
    this.answer = null;
    this.resuming = resume;
    this.send({ type: "start", version: 1, motion: "params", face: Boolean(this.stage.meshes), character: this.choices.character ?? null, voice: this.choices.voice ?? null, ...(resume && { resume }) });
  }

  take(event) {
    const { answer } = this;
    switch (event.type) {
      case "ready": return this.ready(event);
      case "state":
        if (event.state === "hearing") this.cut();
        if (event.state === "thinking") {
          this.expect(event.turn);
          this.notice(event.ahead ? `Others are answered first: ${event.ahead}.` : "");
        }
        if (event.state === "speaking") this.notice("");
        if (event.state === "waiting") this.notice(event.ahead ? `All places are taken; ${event.ahead} others wait before you.` : "All places are taken; you are next.");
        return this.serve(event.state);
      case "error": return this.failed(event);
      case "file":
        this.file = event;
        return undefined;
    }
    if (!answer || event.turn !== answer.number) return undefined;
    if (event.type === "transcript") answer.user.textContent = event.text;
    if (event.type === "text" && !answer.cut) this.say(event);
    if (event.type === "sentence") this.voice.sentences.add(event.seconds.toFixed(3));
    if (event.type === "end") {
      answer.ended = true;
      if (answer.user.textContent === "…") answer.user.textContent = "(a recording)";
      if (!event.valid && !["cancelled", "failed"].includes(event.reason)) this.notice(`The answer was malformed: ${event.reason}`);
      if (event.valid && this.voice.zero === null && answer.frames && !answer.cut) this.voice.zero = this.voice.context.currentTime;
      if (event.valid && !answer.cut) this.keep(answer);
      this.showLatency();
    }
    return undefined;
  }

  takeFrame(data) {
    const view = new DataView(data), { answer } = this;
    if (view.getUint8(0) === FILE_OUT) {
      saveFile(new Blob([data.slice(HEAD_BYTES)]), this.fileName(this.file.turn || "talk", this.file.format));
      return;
    }
    if (!answer || answer.cut || view.getUint32(1, true) !== answer.number) return;
    const kind = view.getUint8(0), payload = data.slice(HEAD_BYTES);
    if (kind === SOUND_OUT) {
      answer.came("sound");
      const samples = new Int16Array(payload), start = view.getFloat64(5, true);
      answer.sounds.push({ samples, start });
      this.voice.play(samples, start);
    } else if (kind === PARAMS_OUT) {
      answer.came("motion");
      answer.add(new Float32Array(payload));
    } else if (kind === FACE_OUT) answer.face.push(...new Float32Array(payload));
    this.showLatency();
  }

  ready(event) {
    const { resuming: asked } = this;
    this.retries = 0;
    this.notice(event.resumed ? "The connection is back, and the talk goes on." : asked ? "The talk could not be continued; a new one has begun." : "");
    this.info = event;
    this.resume = event.resume ?? null;
    if (!this.voice || this.voice.context.sampleRate !== event.sampling_rate) this.voice = new Voice(event.sampling_rate);
    this.name = event.characters[event.character] ?? "Character";
    this.find("title").textContent = this.name;
    document.title = `Talk to ${this.name}`;
    this.fill("character", Object.entries(event.characters), event.character);
    this.fill("voice", event.voices.map((voice) => [voice, voice]), event.voice);
    for (const id of ["file", "text", "send"]) this.find(id).disabled = false;
    this.find("talk").disabled = !navigator.mediaDevices;
    this.find("hands-free").disabled = !navigator.mediaDevices || !event.hands_free;
    this.find("save-talk").hidden = !this.resume;
    for (const id of ["camera", "camera-note"]) this.find(id).hidden = !this.camera || !this.resume || !navigator.mediaDevices;
    this.showRecordings(event.recordings ?? []);
    if (!navigator.mediaDevices) this.notice("Browsers give the microphone to https and to this machine's own pages only; type instead.");
    this.find("save-talk").disabled = !event.resumed || !this.kept?.length;
    if (event.resumed) return;
    this.find("chat").replaceChildren();
    this.kept = [];
    this.find("subtitle").textContent = this.find("latency").textContent = "";
  }

  fill(id, entries, chosen) {
    const select = this.find(id);
    select.replaceChildren(...entries.map(([value, text]) => new Option(text, value, false, value === chosen)));
    if (entries.length && (chosen === null || chosen === undefined)) select.prepend(new Option("–", "", false, true));
    select.disabled = entries.length < 2;
    select.closest("label").hidden = entries.length === 0;
  }

  failed({ code, message }) {
    if (code === "history_full") this.begin();
    this.notice(message);
  }

  /* --- what is said ---------------------------------------------------------------------------------------------- */

  /* A turn has been sent; its answer comes. */
  expect(number) {
    this.voice.begin();
    this.answer = new Answer(number, this.asked ?? performance.now());
    this.asked = null;
    this.answer.fps = this.info.fps;
    this.answer.user = this.bubble("user", "You", this.typed ?? "…");
    this.typed = null;
    this.sentence = "";
    this.find("subtitle").textContent = "";
  }

  say({ text, sentence_end, last }) {
    const { answer } = this;
    answer.came("word");
    answer.words ??= this.bubble("character", this.name, "");
    answer.words.textContent += text;
    this.sentence += text;
    this.find("subtitle").textContent = this.sentence.trim();
    if (sentence_end) {
      this.voice.letters += this.sentence.length;
      this.sentence = "";
    }
    this.voice.written = Boolean(last);
    this.find("chat").scrollTop = this.find("chat").scrollHeight;
    this.showLatency();
  }

  bubble(role, who, text) {
    const node = element("li", `bubble ${role}`), words = element("span", "words", text);
    node.append(element("span", "who", who), words);
    this.find("chat").append(node);
    this.find("chat").scrollTop = this.find("chat").scrollHeight;
    return words;
  }

  /* Buttons to play an answer again and to save it; only the last ones are kept. */
  keep(answer) {
    answer.words ??= this.bubble("character", this.name, "");
    answer.actions = element("span", "actions");
    answer.actions.append(textButton("Replay", () => this.replay(answer)));
    for (const format of ["wav", "npz", "bvh", "glb"]) {
      const act = () => this.send({ type: "export", turn: answer.number, format });
      answer.actions.append(textButton(format, act, `Save the ${format === "wav" ? "sound" : "motion"} as ${format}`));
    }
    this.find("save-talk").disabled = false;
    answer.words.after(answer.actions);
    this.find("chat").scrollTop = this.find("chat").scrollHeight;
    this.kept.push(answer);
    if (this.kept.length > MOST_KEPT) this.kept.shift().actions.remove();
  }

  replay(answer) {
    if (["thinking", "speaking", "hearing"].includes(this.state) || this.talking || this.reciting) return;
    this.cut();
    answer.replayed = true;
    this.voice.context.resume();
    this.voice.begin();
    this.voice.written = true;
    this.answer = answer;
    answer.cut = false;
    this.find("subtitle").textContent = answer.words.textContent;
    this.find("latency").textContent = "";
    for (const { samples, start } of answer.sounds) this.voice.play(samples, start);
    if (!answer.sounds.length) this.voice.zero = this.voice.context.currentTime;
  }

  fileName(turn, format) {
    return `${this.name.toLowerCase().replace(/\W+/g, "-")}-${turn}.${format}`;
  }

  showLatency() {
    const { firsts } = this.answer ?? { firsts: {} }, parts = Object.entries(firsts).map(([part, seconds]) => `first ${part} ${seconds.toFixed(2)} s`);
    this.find("latency").textContent = parts.join(" · ");
  }

  notice(text, again) {
    const node = this.find("notice");
    node.hidden = !text;
    node.textContent = text;
    if (again) node.append(Object.assign(textButton(this.resume ? "Go on" : "Begin again", again), { className: "text-button" }));
  }

  /* Sends a typed turn. */
  type(text) {
    if (!text.trim()) return;
    this.interrupt();
    this.voice.context.resume();
    this.asked = performance.now();
    this.typed = text.trim();
    this.send({ type: "text", text: this.typed });
  }

  /* Says a sound file. */
  async sayFile(file) {
    this.interrupt();
    this.voice.context.resume();
    try {
      this.sendWhole(await decodeSound(await file.arrayBuffer()));
    } catch {
      this.notice(`${file.name} is no sound that this browser can read; take a wav, mp3, ogg or m4a file.`);
      return;
    }
    this.endSound();
  }

  /* Plays a recording that the server keeps, and says it. */
  async recite(id) {
    this.interrupt();
    this.voice.context.resume();
    const reciting = this.reciting = this.voice.context.createBufferSource(); // another turn takes its place
    try {
      const answer = await fetch(`recordings/${id}${location.search}`);
      const sound = await decodeSound(await answer.arrayBuffer());
      if (this.reciting !== reciting) return;
      reciting.buffer = sound;
      reciting.connect(this.voice.context.destination);
      reciting.onended = () => {
        this.reciting = null;
        this.sendWhole(sound);
        this.endSound();
      };
      reciting.start();
    } catch {
      this.reciting = null;
      this.notice("This recording cannot be loaded.");
    }
  }

  sendWhole(sound) {
    const samples = Int16Array.from(sound.getChannelData(0), (value) => Math.round(Math.min(1, Math.max(-1, value)) * 32767));
    for (let i = 0; i < samples.length; i += 8000) this.sendFrame(SOUND_IN, samples.subarray(i, i + 8000));
  }

  endSound() {
    this.asked = performance.now();
    this.send({ type: "audio_end" });
  }

  showRecordings(recordings) {
    this.find("recordings").hidden = !recordings.length;
    this.find("recordings").replaceChildren(...recordings.map(({ id, text }) => textButton(text, () => this.recite(id), `Say the recording: ${text}`)));
  }

  async switchCamera(on) {
    this.find("camera").setAttribute("aria-pressed", String(on));
    this.find("seen").hidden = !on;
    if (!on) return this.camera.stop();
    this.camera.failed = () => this.switchCamera(false);
    try {
      return await this.camera.start();
    } catch (error) {
      await this.switchCamera(false);
      return this.notice(`The camera cannot be used (${error.message || error.name}).`);
    }
  }

  /* --- microphone ------------------------------------------------------------------------------------------------ */

  press() {
    if (this.talking || this.handsFree || this.find("talk").disabled) return;
    this.talking = true;
    this.pressed = performance.now();
    this.heard = 0;
    this.interrupt();
    this.showTalking();
    this.open();
  }

  async open() {
    this.voice.context.resume();
    try {
      this.microphone ??= openMicrophone((samples) => this.hear(samples));
      await this.microphone;
    } catch (error) {
      this.microphone = null;
      this.release(true);
      if (this.handsFree) this.listenAlways(false);
      this.notice(`There is no microphone to be had (${error.message || error.name}); type instead, or allow it.`);
    }
  }

  /* Hands-free: all sound goes to the server, which hears when somebody speaks. */
  listenAlways(on) {
    this.release(true);
    this.handsFree = on;
    this.heard = 0;
    this.send({ type: "listen", hands_free: on });
    this.showTalking();
    if (on) this.open();
  }

  hear(samples) {
    if (!this.talking && !this.handsFree) return;
    this.sendFrame(SOUND_IN, samples);
    this.heard += samples.length;
    const level = Math.sqrt(samples.reduce((sum, value) => sum + value * value, 0) / samples.length) / 32768;
    this.find("meter").style.transform = `scaleX(${Math.min(1, 6 * level)})`;
    if (this.talking && this.heard >= (this.info.turn_seconds - 0.1) * MICROPHONE_RATE) this.release(false);
  }

  /* The turn is over; with `drop` it is forgotten. */
  release(drop) {
    if (!this.talking) return;
    this.talking = this.latched = false;
    this.find("meter").style.transform = "";
    this.showTalking();
    if (drop || !this.heard) return this.send({ type: "interrupt" });
    return this.endSound();
  }

  /* A button or key comes up: a long press ends the turn, a short one leaves the microphone open. */
  lift() {
    if (!this.talking) return;
    if (performance.now() - this.pressed > SHORT_PRESS) this.release(false);
    else this.latched = true;
    this.showTalking();
  }

  down() {
    if (this.latched) this.release(false);
    else this.press();
  }

  showTalking() {
    this.find("talk").setAttribute("aria-pressed", String(this.talking));
    this.find("hands-free").setAttribute("aria-pressed", String(this.handsFree));
    this.find("hint").textContent = this.handsFree
      ? "Speak whenever you like; the character stops when you interrupt it."
      : "Hold the button or the space bar while you speak; a short click keeps listening until the next one. Escape stops the answer.";
    for (const button of this.find("recordings").children) button.disabled = this.handsFree;
    this.find("talk").disabled = this.handsFree || !this.info || this.state === "lost" || !navigator.mediaDevices;
    this.find("meter").style.transform = "";
    this.find("talk-label").textContent = this.handsFree ? "Hands-free" : !this.talking ? "Hold to talk" : this.latched ? "Press to send" : "Listening …";
    this.serve(this.state);
  }

  /* --- stopping -------------------------------------------------------------------------------------------------- */

  busy() {
    return ["thinking", "speaking"].includes(this.state) || this.playing();
  }

  playing() {
    const { answer } = this, time = this.voice?.time() ?? null;
    return Boolean(answer && !answer.cut && time !== null && (!answer.ended || time < Math.max(this.voice.end, answer.frames / answer.fps)));
  }

  /* Silence at once; the server is told how much of the answer was heard. */
  cut() {
    const { answer } = this;
    if (this.reciting) {
      this.reciting.onended = null;
      this.reciting.disconnect();
      this.reciting = null;
    }
    if (answer && this.busy()) {
      answer.cut = true;
      answer.words?.closest(".bubble").classList.add("cut");
      this.find("subtitle").textContent = "";
      const seconds = Math.max(0, Math.min(this.voice.time() ?? 0, this.voice.end || answer.frames / answer.fps));
      if (this.resume && !answer.replayed) this.send({ type: "heard", turn: answer.number, seconds });
    }
    this.voice?.stop();
  }

  interrupt() {
    if (!this.busy() && !this.reciting) return;
    this.cut();
    this.send({ type: "interrupt" });
  }

  serve(state) {
    this.state = state;
    const told = this.talking || this.reciting ? "hearing" : this.playing() ? "speaking" : state;
    if (this.find("state").dataset.state !== told) {
      this.find("state").dataset.state = told;
      if (told === "listening") this.find("subtitle").textContent = "";
      this.find("state").textContent = { hearing: "listening to you", listening: "ready", lost: "not connected", waiting: "waiting for a place" }[told] ?? told;
    }
    this.find("interrupt").disabled = !this.busy() && !this.reciting;
  }

  /* --- body ------------------------------------------------------------------------------------------------------ */

  /* Who is looked at: the user's face where the camera knows it, else the eye of the stage's camera. */
  partner() {
    const { eye, right, up } = this.stage, face = this.camera?.face;
    return face && eye ? add(add(eye, right, 3 * (0.5 - face.x)), up, 2 * (0.5 - face.y)) : eye;
  }

  resting(seconds) {
    return this.gaze.look(restingPose(this.idle, seconds, this.still), this.partner(), seconds);
  }

  pose(seconds) {
    const { answer } = this, time = this.voice?.time() ?? null;
    const moving = Boolean(answer && answer.frames && !answer.cut && time !== null && time >= 0 && (!answer.ended || time < answer.frames / answer.fps));
    if (moving !== this.moving) {
      this.moving = moving;
      this.from = this.shown;
      this.switched = seconds;
    }
    const target = moving ? localAt(answer, time) : this.resting(seconds);
    const passed = Math.min(1, Math.max(0, (seconds - this.switched) / BLEND)), share = passed * passed * (3 - 2 * passed);
    return share < 1 ? mixed(this.from, target, share) : target;
  }

  /* The answer's face while it lasts, else one that blinks. */
  face(seconds, level) {
    const { names } = this.body.mesh, units = this.answer?.face ?? [];
    if (units.length && this.playing()) return faceAt(units, names.length, this.voice.time());
    return plainFace(names, this.still ? 0 : seconds, level);
  }

  /* The camera stays with the body. */
  follow(pose) {
    const [view] = this.stage.track, slow = 0.06;
    let wide = 0, low = Infinity, high = -Infinity;
    for (let i = 0; i < SIZE; i += 3) {
      wide = Math.max(wide, Math.hypot(pose[i] - pose[0], pose[i + 2] - pose[2]));
      low = Math.min(low, pose[i + 1]);
      high = Math.max(high, pose[i + 1]);
    }
    view.centre = [pose[0], (low + high) / 2, pose[2]].map((value, k) => view.centre[k] + slow * (value - view.centre[k]));
    view.width += slow * (Math.max(0.7, 2 * wide) - view.width);
    view.height += slow * (high - low - view.height);
  }

  tick(now) {
    requestAnimationFrame(this.tick);
    if (now - (this.drawn ?? 0) < 15) return; // 60 frames a second are enough
    this.drawn = now;
    this.shown = this.pose(now / 1000);
    const { pose, turns } = placed(this.body, this.shown);
    this.joints = pose;
    this.follow(pose);
    const speaking = this.playing() && this.voice.time() < this.voice.end, level = speaking ? this.voice.level() : null;
    this.stage.draw(0, [{ role: "character", pose, turns, face: this.face(now / 1000, level ?? 0), name: this.name ?? "", level }]);
    this.serve(this.state);
  }

  /* --- controls -------------------------------------------------------------------------------------------------- */

  listen() {
    const on = (id, event, act) => this.find(id).addEventListener(event, act);
    on("talk", "pointerdown", (event) => {
      if (event.button) return;
      this.find("talk").setPointerCapture(event.pointerId);
      this.down();
    });
    for (const name of ["pointerup", "pointercancel"]) on("talk", name, () => this.lift());
    on("talk", "contextmenu", (event) => event.preventDefault());
    on("talk", "click", (event) => { // of a key or a screen reader; a pointer's is told above
      if (event.detail) return;
      if (this.talking) return this.release(false);
      this.press();
      this.latched = this.talking;
      return this.showTalking();
    });
    on("hands-free", "click", () => this.listenAlways(!this.handsFree));
    on("camera", "click", () => this.switchCamera(!this.camera.on));
    on("save-talk", "click", () => this.send({ type: "export", turn: 0, format: "html" }));
    on("interrupt", "click", () => this.interrupt());
    on("reset-view", "click", () => this.view());
    on("form", "submit", (event) => {
      event.preventDefault();
      this.type(this.find("text").value);
      this.find("text").value = "";
    });
    on("file", "change", ({ target }) => {
      if (target.files.length) this.sayFile(target.files[0]);
      target.value = "";
    });
    for (const id of ["character", "voice"]) {
      on(id, "change", ({ target }) => {
        this.choices[id] = target.value || null;
        if (id === "character") this.choices.voice = null; // it has one of its own
        else this.choices.character = this.find("character").value || null;
        this.begin();
      });
    }
    this.listenToKeys();
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) return;
      this.release(false);
      if (this.handsFree) this.listenAlways(false);
      if (this.camera?.on) this.switchCamera(false);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.stage.readColours());
    const calm = matchMedia("(prefers-reduced-motion: reduce)");
    const obey = () => { this.still = calm.matches; };
    calm.addEventListener("change", obey);
    obey();
    this.stage.listen(() => {});
  }

  listenToKeys() {
    const talks = ({ code, target }) => code === "Space" && (target.id === "talk" || !target.closest("button, a, input, select, textarea"));
    document.addEventListener("keydown", (event) => {
      if (event.code === "Escape") this.interrupt();
      if (!talks(event)) return;
      event.preventDefault();
      if (!event.repeat) this.down();
    });
    document.addEventListener("keyup", (event) => {
      if (!talks(event)) return;
      event.preventDefault();
      this.lift();
    });
  }
}

function textButton(text, act, label = null) {
  const button = element("button", "", text);
  button.type = "button";
  if (label) button.setAttribute("aria-label", label);
  button.addEventListener("click", act);
  return button;
}

const page = JSON.parse(document.getElementById("live-data").textContent);
const live = new Live(page.body, page.idle, page.camera);

/* For tests, and for the curious in the console. */
window.solamiLive = {
  state: () => ({ state: document.getElementById("state").dataset.state, turn: live.answer?.number ?? 0, frames: live.answer?.frames ?? 0,
    ended: live.answer?.ended ?? false, moving: live.moving, time: live.voice?.time() ?? null, played: live.voice?.played ?? 0,
    sources: live.voice?.sources.size ?? 0, gaps: live.voice?.gaps ?? 0, heard: live.heard ?? 0, marks: live.marks, looks: live.camera?.looks ?? 0, joints: Array.from(live.joints), figure: live.stage.drawn }),
};
