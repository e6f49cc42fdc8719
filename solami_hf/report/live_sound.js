/* Sound of the live page: the microphone at 16 kHz, and a voice that is played piece by piece without gaps. */

const MICROPHONE_RATE = 16000;
const SHORTEST_LEAD = 0.3, LONGEST_LEAD = 2; // seconds that a first piece of sound is held, so that the next ones come in time
// While more words are written a short sentence is held longer: as long as it lacks to 3 s, at 15 letters a second
const LETTERS = 15, ENOUGH = 3, LONGEST_HOLD = 1.2;
const BREATH = 0.4; // seconds by which a pause between sentences may be longer

/* In the audio thread: any rate to 16 kHz, each sample the mean over its time; 50 ms a piece. */
const MICROPHONE = `class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.ratio = sampleRate / ${MICROPHONE_RATE};
    this.room = this.ratio;
    this.sum = this.count = 0;
    this.piece = new Int16Array(${MICROPHONE_RATE / 20});
  }
  process([input]) {
    for (const value of input[0] ?? []) {
      let left = 1;
      for (; left >= this.room; this.sum = 0, this.room = this.ratio) {
        this.push((this.sum + value * this.room) / this.ratio);
        left -= this.room;
      }
      this.sum += value * left;
      this.room -= left;
    }
    return true;
  }
  push(value) {
    this.piece[this.count++] = Math.round(Math.min(1, Math.max(-1, value)) * 32767);
    if (this.count === this.piece.length) {
      this.port.postMessage(this.piece.slice());
      this.count = 0;
    }
  }
}
registerProcessor("microphone", Microphone);`;

/* Any sound file's bytes as an AudioBuffer at the microphone's rate. */
function decodeSound(bytes) {
  return new OfflineAudioContext(1, 1, MICROPHONE_RATE).decodeAudioData(bytes); // it decodes to its own rate
}

/* Opens the microphone; `hear(samples)` gets Int16Array pieces. */
async function openMicrophone(hear) {
  const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  const context = new AudioContext(), address = URL.createObjectURL(new Blob([MICROPHONE], { type: "text/javascript" }));
  await context.audioWorklet.addModule(address);
  URL.revokeObjectURL(address);
  const node = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0 });
  node.port.onmessage = (event) => hear(event.data);
  context.createMediaStreamSource(stream).connect(node);
  await context.resume();
}

/* Plays pieces of sound one behind the other. */
class Voice {
  constructor(rate) {
    this.context = new AudioContext({ sampleRate: rate });
    this.meter = this.context.createAnalyser();
    this.meter.fftSize = 512;
    this.meter.connect(this.context.destination);
    this.wave = new Float32Array(this.meter.fftSize);
    this.lead = SHORTEST_LEAD;
    this.played = this.gaps = this.found = 0;
    this.begin();
  }

  begin() {
    this.stop();
    if (this.gaps === this.found) this.lead = Math.max(SHORTEST_LEAD, this.lead / 2); // the last answer had none
    this.found = this.gaps;
    this.sentences = new Set(); // ends of them, in seconds of the answer, as text
    this.letters = 0; // of the sentences that are written
    this.written = false; // all of them
    this.zero = null; // when second 0 of the answer sounds, null before anything of it does
    this.end = 0; // of the sound so far, in seconds of the answer
  }

  stop() {
    for (const source of this.sources ?? []) {
      source.onended = null;
      source.stop();
    }
    this.sources = new Set();
  }

  hold() {
    const lacks = this.written ? 0 : Math.min(LONGEST_HOLD, ENOUGH - this.letters / LETTERS);
    return Math.max(this.lead, lacks);
  }

  play(samples, start) {
    const now = this.context.currentTime;
    if (this.zero === null) this.zero = now + this.hold() - start;
    const late = now + 0.01 - (this.zero + start);
    if (late > 0) {
      const between = this.sentences.has(start.toFixed(3));
      this.zero += late + (between ? 0 : this.lead);
      if (!between || late > BREATH) {
        this.gaps++;
        this.lead = Math.min(LONGEST_LEAD, this.lead * 2);
      }
    }
    const buffer = this.context.createBuffer(1, samples.length, this.context.sampleRate);
    buffer.copyToChannel(Float32Array.from(samples, (value) => value / 32768), 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.meter);
    source.onended = () => {
      this.played += samples.length;
      this.sources.delete(source);
    };
    source.start(this.zero + start);
    this.sources.add(source);
    this.end = start + samples.length / this.context.sampleRate;
  }

  /* The second of the answer that is heard now, null before it begins. */
  time() {
    return this.zero === null ? null : this.context.currentTime - this.zero - (this.context.outputLatency || 0);
  }

  level() {
    this.meter.getFloatTimeDomainData(this.wave);
    return Math.min(1, 5 * Math.sqrt(this.wave.reduce((sum, value) => sum + value * value, 0) / this.wave.length));
  }
}
