/* The camera of the live page: MediaPipe finds a body in its pictures, and only the points that it finds leave the page.

   MediaPipe is loaded when the camera is switched on for the first time, from this server or another (docs/serving.md). */

const MARKS = 300, HANDS_AT = [33, 54]; // 75 landmarks of x, y, z, visibility
const MARKS_RATE = 30; // landmarks a second that are sent, between what is seen by a straight line
const LOOKS_RATE = 20; // pictures a second that are looked at, at most
const LONGEST_GAP = 0.5; // seconds between two sights, above which the points between are missing
const PALM = 0.09; // metres from the wrist to the knuckle of the middle finger
const DETECTOR_HASH = "sha384-uPgv3xhUPhBy7PuniMrm0xGTB8Wme5XMJWg98sFaqvxMAbPeOSa2De2R46nuG8Sw"; // of holistic.js 0.5.1675471629
const BONES = [[11, 12], [11, 13], [13, 15], [12, 14], [14, 16], [11, 23], [12, 24], [23, 24], [23, 25], [25, 27], [24, 26], [26, 28], [27, 31], [28, 32], [7, 2], [2, 5], [5, 8]];
const HAND_BONES = [1, 5, 9, 13, 17].flatMap((first) => [[0, first], ...[0, 1, 2].map((i) => [first + i, first + i + 1])]);

/* MediaPipe's results as 75 landmarks (300 numbers), null where nobody's shoulders are seen.

   Hands have no world coordinates of their own: they are put at the wrists, at a usual size. */
function seenMarks(results, aspect) {
  const pose = results.poseLandmarks;
  // the world landmarks have no name in this version: they are the other 33
  const world = Object.values(results).find((list) => list !== pose && Array.isArray(list) && list.length === 33);
  if (!pose || !world || Math.min(pose[11].visibility, pose[12].visibility) < 0.5) return null;
  const marks = new Float32Array(MARKS);
  world.forEach(({ x, y, z }, i) => marks.set([x, y, z, Math.min(1, Math.max(0, pose[i].visibility ?? 1))], 4 * i));
  [results.leftHandLandmarks, results.rightHandLandmarks].forEach((hand, side) => {
    if (!hand) return;
    const points = hand.map(({ x, y, z }) => [x * aspect, y, z * aspect]), wrist = points[0];
    const scale = PALM / Math.max(1e-3, Math.hypot(...subtract(points[9], wrist))), place = 4 * (15 + side);
    points.forEach((point, i) => marks.set([...add(marks.subarray(place, place + 3), subtract(point, wrist), scale), 1], 4 * (HANDS_AT[side] + i)));
  });
  return marks;
}

class Camera {
  /* address: of MediaPipe's files; picture: the canvas for what is seen; give(frames, seconds): gets landmarks. */
  constructor(address, picture, give) {
    Object.assign(this, { address, picture, give, on: false, face: null, looks: 0, last: null });
  }

  async start() {
    this.on = true;
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480, frameRate: 30 } });
      this.video = document.createElement("video");
      Object.assign(this.video, { srcObject: this.stream, muted: true, playsInline: true });
      await this.video.play();
      await (this.detector ??= this.load());
      if (this.on) this.look();
      else this.stop();
    } catch (error) {
      this.detector = null;
      this.stop();
      throw error;
    }
  }

  stop() {
    this.on = false;
    this.face = this.last = null;
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.picture.getContext("2d").clearRect(0, 0, this.picture.width, this.picture.height);
  }

  async load() {
    const script = element("script"), { address } = this, { search } = location;
    const near = !address.startsWith("https:"), file = (name) => address + name + (near ? search : "");
    script.src = file("holistic.js");
    if (!near) Object.assign(script, { integrity: DETECTOR_HASH, crossOrigin: "anonymous" });
    await new Promise((done, failed) => {
      script.onload = done;
      script.onerror = () => failed(new Error(`${script.src} cannot be loaded`));
      document.head.append(script);
    });
    const detector = new window.Holistic({ locateFile: file });
    detector.setOptions({ modelComplexity: 1, smoothLandmarks: true, refineFaceLandmarks: false });
    detector.onResults((results) => this.see(results));
    await detector.initialize();
    return detector;
  }

  async look() {
    const detector = await this.detector;
    while (this.on) {
      const begun = performance.now();
      try {
        await detector.send({ image: this.video });
      } catch {
        this.stop();
        this.failed?.();
        return;
      }
      await new Promise((done) => { setTimeout(done, Math.max(5, 1000 / LOOKS_RATE - (performance.now() - begun))); });
    }
  }

  see(results) {
    if (!this.on) return;
    this.looks++;
    this.draw(results);
    const marks = seenMarks(results, this.video.videoWidth / Math.max(1, this.video.videoHeight));
    this.face = results.poseLandmarks ? results.poseLandmarks[0] : null;
    if (marks) this.push(marks, performance.now() / 1000);
  }

  /* Landmarks at an even rate, up to this sight. */
  push(marks, now) {
    const { last } = this, whole = Math.floor(now * MARKS_RATE);
    this.last = { marks, now, whole };
    if (!last || now - last.now > LONGEST_GAP) {
      this.give(marks, whole / MARKS_RATE);
      return;
    }
    const frames = new Float32Array(MARKS * (whole - last.whole));
    for (let frame = last.whole + 1; frame <= whole; frame++) {
      const share = Math.max(0, (frame / MARKS_RATE - last.now) / (now - last.now));
      for (let i = 0; i < MARKS; i++) {
        // a point that is missing on one side is what the other says
        const [a, b] = [last, { marks }].map((sight) => sight.marks[i | 3] > 0), kept = a && b ? share : b ? 1 : 0;
        frames[MARKS * (frame - last.whole - 1) + i] = last.marks[i] * (1 - kept) + marks[i] * kept;
      }
    }
    if (frames.length) this.give(frames, (last.whole + 1) / MARKS_RATE);
  }

  /* What is seen, as in a mirror, without the picture. */
  draw({ poseLandmarks, leftHandLandmarks, rightHandLandmarks }) {
    const { width, height } = this.picture, pen = this.picture.getContext("2d");
    pen.clearRect(0, 0, width, height);
    pen.lineCap = "round";
    pen.strokeStyle = getComputedStyle(this.picture).color;
    for (const [points, bones, wide] of [[poseLandmarks, BONES, 3], [leftHandLandmarks, HAND_BONES, 1.5], [rightHandLandmarks, HAND_BONES, 1.5]]) {
      pen.lineWidth = wide;
      for (const [a, b] of points ? bones : []) {
        if (Math.min(points[a].visibility ?? 1, points[b].visibility ?? 1) < 0.5) continue;
        pen.beginPath();
        for (const { x, y } of [points[a], points[b]]) pen.lineTo((1 - x) * width, y * height);
        pen.stroke();
      }
    }
  }
}
