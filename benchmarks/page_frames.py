"""Frames a second, load time and bytes of the report page and the live page in Chromium without a graphics card.

    python benchmarks/page_frames.py [--seconds 5] [--repeats 3]

A row for each page and figure: the simpler one that a canvas draws, and the mesh that three.js draws by software. Load
is the time from the address to the first figure that is drawn, from a server on this machine; bytes are those of the
page and, in brackets, of gzip. The report plays a round of a wave, in which two stand; in the live page one waits and
breathes. The mesh is drawn at the share of the size that a page takes without a graphics card, and whole.
"""

import argparse
import functools
import gzip
import http.server
import json
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np
from playwright.sync_api import sync_playwright

from solami_hf.demo.corpus.gestures import make_gesture
from solami_hf.report.live_page import live_page
from solami_hf.report.page import Conversation, Performer, Scene, standing_motion, write_report

DRAWN = {
    "report": "window.solamiReport?.ready && solamiReport.state().drawnFigures === 2",
    "live": "window.solamiLive && live.stage.drawnFigures > 0",
}
COUNT = """async ([name, share, seconds]) => {
  const { meshes } = name === "live" ? live.stage : player.stage;
  if (meshes && share) meshes.share = share;
  if (name === "report") { player.seek(player.starts.character); player.play(); }
  const next = () => new Promise(requestAnimationFrame);
  for (const end = performance.now() + 500; performance.now() < end; ) await next();
  const begin = performance.now();
  let frames = 0;
  for (; performance.now() < begin + 1000 * seconds; frames++) {
    await next();
    if (name === "report" && !player.playing) { player.seek(player.starts.character); player.play(); }
  }
  return (1000 * frames) / (performance.now() - begin);
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Gives files, and writes no log; the live page finds no server behind it and waits."""

    def log_message(self, *args) -> None:
        """Nothing."""


def pages(folder: Path) -> dict[str, Path]:
    """The two pages, written into a folder."""
    motion, _ = make_gesture("wave", np.random.default_rng(0))
    user = Performer.of_motion("Robin", standing_motion((0, 0, 1.5), np.pi), None, "Hello")
    face = np.abs(np.sin(np.arange(motion.num_frames) / 5))[:, None] * np.eye(52, dtype=np.float32)[17]
    character = Performer.of_motion("Ada", motion, None, "Hi", face=face)
    talk = Conversation("A talk", "", [Scene("Round 1", "", user, character)])
    report = write_report(folder / "report.html", title="Talk", lead="A wave.", conversations=[talk])
    (folder / "live.html").write_text(live_page(), encoding="utf-8")
    return {"report": Path(report), "live": folder / "live.html"}


def measured(browser, name: str, address: str, share: float, seconds: float) -> dict[str, float]:
    """Frames a second and seconds of load of one opening of a page."""
    view = browser.new_page(viewport={"width": 1280, "height": 800})
    begin = time.perf_counter()
    view.goto(address)
    while not view.evaluate(DRAWN[name]):  # the page's policy forbids to wait by an expression in it
        time.sleep(0.02)
    load = time.perf_counter() - begin
    frames = view.evaluate(COUNT, [name, share, seconds])
    view.close()
    return {"frames_a_second": frames, "load_seconds": load}


def main(argv: list[str] | None = None) -> dict:
    """Entry point; returns and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="that frames are counted")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    found: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio"]
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        files = pages(Path(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, page in files.items():
            content = page.read_bytes()
            for figure, share in (("canvas", 0), ("mesh", 0), ("mesh", 1)):
                address = f"http://127.0.0.1:{server.server_port}/{page.name}?figure={figure}"
                runs = [measured(browser, name, address, share, args.seconds) for _ in range(args.repeats)]
                row = {key: round(median(run[key] for run in runs), 2) for key in runs[0]}
                row |= {"lowest": round(min(run["frames_a_second"] for run in runs), 2)}
                row |= {"bytes": len(content), "gzip": len(gzip.compress(content))}
                label = f"{name} {figure}" + (" at full size" if share else "")
                found[label] = row
                sys.stdout.write(
                    f"{label:24} {row['frames_a_second']:5.1f} frames a second (lowest {row['lowest']:.1f}), load "
                    f"{row['load_seconds']:.2f} s, {row['bytes'] / 1e6:.2f} MB ({row['gzip'] / 1e6:.2f})\n"
                )
        browser.close()
        server.shutdown()
    sys.stdout.write(json.dumps(found) + "\n")
    return found


if __name__ == "__main__":
    main()
