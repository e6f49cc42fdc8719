/* The player: a round is the user's clip, a breath, and the character's clip; or both at once, to be compared. While a
   voice sounds, it leads the time; elsewhere the clock does. */

const BREATH = 0.4; // seconds between the two clips
const REST = 0.6; // seconds that the last frame stays
const ROLES = ["user", "character"];

function clockText(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

class Player {
  constructor(conversations, body) {
    this.conversations = conversations;
    this.body = body;
    this.rounds = conversations.flatMap((conversation, c) => conversation.scenes.map((scene) => ({ scene, conversation: c })));
    this.find = (id) => document.getElementById(id);
    this.stage = new Stage(this.find("stage"), body);
    this.round = -1;
    this.time = 0;
    this.playing = false;
    this.whole = false;
    this.muted = false;
    this.stale = true;
    this.buildConversationList();
    this.listen();
    this.select(0);
    this.lastTick = performance.now();
    this.tick = this.tick.bind(this);
    this.tick(this.lastTick);
  }

  /* --- rounds ------------------------------------------------------------------------------------------------- */

  buildConversationList() {
    this.tabs = this.conversations.map((conversation, c) => {
      const tab = element("button", "conversation-tab");
      tab.type = "button";
      tab.append(element("strong", "", conversation.title));
      const right = conversation.scenes.filter((scene) => scene.correct).length;
      const judged = conversation.scenes.filter((scene) => scene.correct !== null).length;
      const count = conversation.scenes.length, unit = conversation.together ? "clip" : "round";
      tab.append(element("span", "", `${count} ${unit}${count > 1 ? "s" : ""}${judged ? ` · ${right}/${judged} as expected` : ""}`));
      tab.addEventListener("click", () => this.select(this.rounds.findIndex((round) => round.conversation === c)));
      return tab;
    });
    this.find("conversation-list").append(...this.tabs);
  }

  /* Shows round `index` of all rounds, at its start and paused. */
  select(index) {
    const before = this.rounds[this.round];
    this.pause();
    this.round = Math.min(Math.max(index, 0), this.rounds.length - 1);
    const { scene, conversation } = this.rounds[this.round];
    ROLES.forEach((role) => {
      const performer = scene[role];
      if (typeof performer.params === "string") performer.params = decodeParams(performer.params);
      if (typeof performer.face === "string") performer.face = Float32Array.from(unpack(performer.face, Uint8Array), (value) => value / 255);
      if (performer.joints) performer.positions ??= decodeJoints(performer.joints);
    });
    const seconds = (performer) => Math.max(performer.audioSeconds, performer.frames / performer.fps);
    const turn = this.conversations[conversation].together ? 0 : seconds(scene.user) + BREATH;
    this.starts = { user: 0, character: turn };
    this.ends = { user: seconds(scene.user), character: turn + seconds(scene.character) };
    this.duration = Math.max(...Object.values(this.ends)) + REST;
    this.time = 0;
    this.openVoices(scene);
    this.stage.setRound(this.duration, (time) => ROLES.map((role) => this.posed(scene[role], time - this.starts[role]).pose));
    if (!before || before.conversation !== conversation) {
      this.buildChat(conversation);
      this.stage.resetView();
    }
    this.find("scene-title").textContent = scene.title;
    this.find("scene-subtitle").textContent = scene.subtitle;
    this.find("scrub").max = this.duration;
    this.find("previous").disabled = this.round === 0;
    this.find("next").disabled = this.round === this.rounds.length - 1;
    this.tabs.forEach((tab, c) => tab.setAttribute("aria-pressed", String(c === conversation)));
    this.chatRounds.forEach((item) => item.node.classList.toggle("current", item.round === this.round));
    this.scrollChat();
    this.stale = true;
  }

  buildChat(conversation) {
    this.find("conversation-description").textContent = this.conversations[conversation].description;
    const first = this.rounds.findIndex((round) => round.conversation === conversation);
    this.chatRounds = this.conversations[conversation].scenes.map((scene, i) => {
      const node = element("li", "chat-round"), head = element("button", "round-head");
      head.type = "button";
      head.append(element("strong", "", scene.title), element("span", "", scene.subtitle));
      head.addEventListener("click", () => this.select(first + i));
      node.append(head, this.bubble(first + i, scene, "user"), this.bubble(first + i, scene, "character"), this.verdict(scene));
      return { node, round: first + i };
    });
    this.find("chat").replaceChildren(...this.chatRounds.map((item) => item.node));
  }

  bubble(index, scene, role) {
    const performer = scene[role], node = element("button", `bubble ${role}`);
    node.type = "button";
    node.dataset.round = index;
    node.dataset.role = role;
    node.setAttribute("aria-label", `Play ${performer.name}: ${performer.transcript}`);
    node.append(element("span", "who", performer.name), element("span", "words", performer.transcript || "(says nothing)"));
    if (performer.action) node.append(element("span", "action", performer.action));
    node.addEventListener("click", () => {
      if (index !== this.round) this.select(index);
      this.seek(this.starts[role]);
      this.play();
    });
    return node;
  }

  verdict(scene) {
    const node = element("div", "verdict");
    const note = (good, text) => {
      const line = element("p"), mark = element("span", `mark ${good ? "good" : "poor"}`, good ? "✓" : "✗");
      mark.setAttribute("aria-hidden", "true");
      line.append(mark, element("span", "", text));
      node.append(line);
    };
    if (!scene.valid) note(false, "The answer was not well formed.");
    if (scene.correct !== null) {
      const told = scene.expected === null || scene.expected === scene.character.transcript ? "" : `: ${scene.expected}`;
      note(scene.correct, (scene.correct ? "as expected" : told ? "expected" : "not as expected") + told);
    }
    return node;
  }

  scrollChat() {
    const chat = this.find("chat"), item = this.chatRounds.find(({ round }) => round === this.round);
    if (item) chat.scrollTop = item.node.offsetTop - chat.offsetTop - 12;
  }

  /* --- time and sound ------------------------------------------------------------------------------------------ */

  openVoices(scene) {
    for (const voice of Object.values(this.voices ?? {})) {
      voice.sound.pause();
      URL.revokeObjectURL(voice.sound.src);
    }
    this.voices = {};
    for (const role of ROLES) {
      if (!scene[role].audio) continue;
      const bytes = Uint8Array.from(atob(scene[role].audio), (letter) => letter.charCodeAt(0));
      const sound = new Audio(URL.createObjectURL(new Blob([bytes], { type: "audio/wav" })));
      sound.muted = this.muted;
      this.voices[role] = { sound, seconds: scene[role].audioSeconds, blocked: false, heard: 0, heardAt: 0 };
    }
  }

  play() {
    if (this.time >= this.duration - 1e-3) this.time = 0;
    for (const voice of Object.values(this.voices)) voice.blocked = false;
    this.playing = true;
    this.stale = true;
    this.showPlaying();
  }

  pause() {
    this.playing = false;
    for (const voice of Object.values(this.voices ?? {})) voice.sound.pause();
    this.stale = true;
    this.showPlaying();
  }

  seek(time) {
    this.time = Math.min(Math.max(Number(time) || 0, 0), this.duration ?? 0);
    // a voice takes its new place when it starts again in the next tick
    for (const voice of Object.values(this.voices)) voice.sound.pause();
    this.stale = true;
  }

  playWhole() {
    this.whole = true;
    const { conversation } = this.rounds[this.round];
    this.select(this.rounds.findIndex((round) => round.conversation === conversation));
    this.play();
  }

  /* Starts and stops the voices around this.time, and pulls this.time to the one that sounds. */
  followVoices(now) {
    for (const role of ROLES) {
      const voice = this.voices[role], place = this.time - this.starts[role];
      if (!voice) continue;
      const { sound } = voice;
      // a voice that lags behind the clock may still say its last syllable
      if (place < 0 || place >= voice.seconds + (sound.paused ? 0 : 0.3) || voice.blocked) {
        if (!sound.paused) sound.pause();
      } else if (sound.paused) {
        if (voice.seconds - place < 0.06) continue; // too little left to start it
        sound.currentTime = place;
        Object.assign(voice, { heard: place, heardAt: now });
        // where the browser refuses sound, the clock goes on alone
        sound.play().catch((error) => { voice.blocked = error.name !== "AbortError"; });
      } else {
        if (sound.currentTime !== voice.heard) Object.assign(voice, { heard: sound.currentTime, heardAt: now });
        if (now - voice.heardAt > 400) continue; // a sound device that hangs does not stop the figures
        const drift = sound.currentTime - place;
        this.time += Math.abs(drift) > 0.2 ? drift : drift * 0.15;
      }
    }
  }

  tick(now) {
    requestAnimationFrame(this.tick);
    const passed = Math.min((now - this.lastTick) / 1000, 0.25);
    this.lastTick = now;
    if (this.playing) {
      this.time += Math.max(passed, 0);
      this.followVoices(now);
      if (this.time >= this.duration) this.finish();
      this.stale = true;
    }
    if (!this.stale) return;
    this.stale = false;
    this.draw();
  }

  finish() {
    const next = this.rounds[this.round + 1];
    if (this.whole && next && next.conversation === this.rounds[this.round].conversation) {
      this.select(this.round + 1);
      this.play();
      return;
    }
    this.whole = false;
    this.pause();
    this.time = this.duration;
  }

  /* --- what is seen -------------------------------------------------------------------------------------------- */

  speaker() {
    if (this.conversations[this.rounds[this.round].conversation].together) return null;
    return ROLES.find((role) => this.time >= this.starts[role] && this.time < this.ends[role] && (this.playing || this.time > 0)) ?? null;
  }

  /* {pose, turns} of a performer; without rotations, its joints. */
  posed(performer, seconds) {
    return performer.params ? placed(this.body, localAt(performer, seconds)) : { pose: poseAt(performer, seconds), turns: null };
  }

  face(performer, seconds, level) {
    if (!this.body) return null;
    const { names } = this.body.mesh, speaks = seconds >= 0 && seconds < performer.face?.length / names.length / 30;
    return speaks ? faceAt(performer.face, names.length, seconds) : plainFace(names, this.time, level);
  }

  draw() {
    const { scene } = this.rounds[this.round], speaker = this.speaker();
    this.stage.draw(this.time, ROLES.map((role) => {
      const performer = scene[role], place = this.time - this.starts[role];
      const level = (performer.peaks[Math.floor((place / performer.audioSeconds) * performer.peaks.length)] ?? 0) / 100;
      const heard = role === speaker ? level : 0;
      return { role, ...this.posed(performer, place), face: this.face(performer, place, heard), name: performer.name, level: role === speaker ? level : null };
    }));
    this.find("scrub").value = this.time;
    this.find("scrub").setAttribute("aria-valuetext", `${this.time.toFixed(1)} of ${this.duration.toFixed(1)} seconds`);
    this.find("clock").textContent = `${clockText(this.time)} / ${clockText(this.duration)}`;
    for (const bubble of this.find("chat").querySelectorAll(".bubble")) {
      bubble.classList.toggle("speaking", Number(bubble.dataset.round) === this.round && bubble.dataset.role === speaker);
    }
    this.drawWaveform(scene);
  }

  drawWaveform(scene) {
    const canvas = this.find("waveform"), pen = canvas.getContext("2d"), ratio = Math.min(window.devicePixelRatio || 1, 2);
    const wide = canvas.clientWidth, high = canvas.clientHeight, style = getComputedStyle(document.documentElement);
    [canvas.width, canvas.height] = [Math.round(wide * ratio), Math.round(high * ratio)];
    pen.scale(ratio, ratio);
    for (let x = 1; x < wide - 1; x += 4) {
      const time = (x / wide) * this.duration, role = ROLES.find((name) => time >= this.starts[name] && time < this.ends[name]);
      let tall = 2;
      if (role) {
        const { peaks, audioSeconds } = scene[role];
        tall = 3 + (high - 6) * ((peaks[Math.floor(((time - this.starts[role]) / audioSeconds) * peaks.length)] ?? 0) / 100);
      }
      pen.fillStyle = style.getPropertyValue(role ? `--${role}` : "--line");
      pen.globalAlpha = time <= this.time ? 1 : 0.32;
      pen.beginPath();
      pen.roundRect(x, (high - tall) / 2, 2.5, tall, 1.25);
      pen.fill();
    }
    pen.globalAlpha = 1;
    pen.fillStyle = style.getPropertyValue("--ink");
    pen.fillRect(Math.min((this.time / this.duration) * wide, wide - 2), 0, 2, high);
  }

  showPlaying() {
    const button = this.find("play");
    this.find("player").classList.toggle("playing", this.playing);
    button.setAttribute("aria-label", this.playing ? "Pause" : "Play");
    button.title = this.playing ? "Pause (space)" : "Play (space)";
  }

  /* --- controls ------------------------------------------------------------------------------------------------ */

  listen() {
    const on = (id, event, act) => this.find(id).addEventListener(event, act);
    const toggle = () => {
      this.whole = this.whole && !this.playing;
      this.playing ? this.pause() : this.play();
    };
    on("play", "click", toggle);
    on("previous", "click", () => this.select(this.round - 1));
    on("next", "click", () => this.select(this.round + 1));
    on("play-all", "click", () => this.playWhole());
    on("reset-view", "click", () => { this.stage.resetView(); this.stale = true; });
    on("scrub", "input", (event) => this.seek(event.target.value));
    on("mute", "click", () => {
      this.muted = !this.muted;
      for (const voice of Object.values(this.voices)) voice.sound.muted = this.muted;
      this.find("mute").setAttribute("aria-pressed", String(this.muted));
    });
    document.addEventListener("keydown", (event) => {
      // a focused button has its own meaning of space
      if (event.code !== "Space" || event.target.closest("button, a, select, textarea")) return;
      event.preventDefault();
      toggle();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.stage.readColours(); this.stale = true; });
    new ResizeObserver(() => { this.stale = true; }).observe(this.find("stage"));
    this.stage.listen(() => { this.stale = true; });
  }
}

const reportData = JSON.parse(document.getElementById("report-data").textContent);
const player = reportData.conversations.length ? new Player(reportData.conversations, reportData.body) : null;

/* For tests, and for the curious in the console. */
window.solamiReport = {
  ready: true,
  rounds: player ? player.rounds.length : 0,
  play: () => player?.play(),
  pause: () => player?.pause(),
  seek: (time) => player?.seek(time),
  select: (round) => player?.select(round),
  state: () => ({ round: player?.round ?? -1, time: player?.time ?? 0, playing: player?.playing ?? false, speaker: player?.speaker() ?? null,
    drawnFigures: player?.stage.drawnFigures ?? 0, figure: player?.stage.drawn ?? null, duration: player?.duration ?? 0 }),
};
