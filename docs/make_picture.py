"""Draws pictures in a headless browser: a round of a report page, frame by frame, the live page, or an avatar.

    python docs/make_picture.py runs/demo/report.html --output docs/character.webp
    python docs/make_picture.py http://127.0.0.1:8080 --output docs/live.webp       # `solami serve` runs there
    python docs/make_picture.py tests/fixtures/avatars/boxes1.vrm --output docs/other_avatar.webp --width 1000

Needs `pip install playwright pillow` and Debian's `chromium`.
"""

import argparse
import io
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from solami_hf.demo.corpus.gestures import make_gesture
from solami_hf.report.page import Conversation, Performer, Scene, standing_motion, write_report


def frames(report: Path, conversation: int, fps: float, width: int) -> list[Image.Image]:
    """The player of a page at equal steps through the first round of a conversation, scaled to `width` pixels."""
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.goto(report.resolve().as_uri())
        page.locator(".conversation-tab").nth(conversation).click()
        player, scrub = page.locator("#player"), page.locator("#scrub")
        end = float(scrub.get_attribute("max"))
        for step in range(int(end * fps)):
            scrub.evaluate(
                "(input, time) => { input.value = time; input.dispatchEvent(new Event('input', { bubbles: true })); }",
                step / fps,
            )
            page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            image = Image.open(io.BytesIO(player.screenshot())).convert("RGB")
            found.append(image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS))
        browser.close()
    return found


def talk(address: str, words: str, width: int) -> list[Image.Image]:
    """The live page while the character answers, scaled to `width` pixels."""
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--enable-unsafe-swiftshader"]  # the skinned body also without a graphics card
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        page = browser.new_page(viewport={"width": 1280, "height": 720}, color_scheme="light")
        page.goto(f"{address}/?figure=mesh")
        page.locator("#text:enabled").fill(words)
        page.keyboard.press("Enter")
        page.locator(".actions").wait_for(timeout=120_000)  # it is complete, and may be heard again
        page.locator("#state[data-state=listening]").wait_for(timeout=60_000)
        page.click("text=Replay")
        page.locator("#state[data-state=speaking]").wait_for()
        page.evaluate("live.voice.time = () => window.moment")  # a mesh by software takes a second to draw
        seconds, highest = page.evaluate("live.answer.frames / live.answer.fps"), []
        for moment in [0.25 * step for step in range(1, int(4 * seconds))] + [None]:  # that with the highest hand
            page.evaluate("(moment) => { window.moment = moment; }", max(highest)[1] if moment is None else moment)
            page.wait_for_timeout(1500)
            joints = page.evaluate("solamiLive.state().joints")
            highest.append((max(joints[3 * wrist + 1] for wrist in (20, 21)), moment))
        image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        browser.close()
    return [image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)]


def worn(avatar: Path, width: int) -> list[Image.Image]:
    """Four moments of a wave in a report page: the page's own figure, and below it an avatar that was chosen there."""
    motion, _ = make_gesture("wave", np.random.default_rng(0))
    user, character = (
        Performer.of_motion("You", standing_motion((2.5, 0, 0))),
        Performer.of_motion("Ada", motion),
    )
    talk = Conversation("A talk", "", [Scene("", "", user, character)])
    middle = motion.pelvis[0] * [1, 0, 1] + [0, 1.0, 0]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report = write_report(Path(folder) / "report.html", title="", lead="", conversations=[talk])
        options = ["--no-sandbox", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        page = browser.new_page(viewport={"width": 1280, "height": 1000}, color_scheme="light", device_scale_factor=2)
        page.goto(f"{Path(report).as_uri()}?figure=mesh")
        page.evaluate("() => { player.stage.yawOffset = 3.5 - player.stage.baseYaw; player.stage.meshes.share = 1; }")
        shots = []
        for chosen in (None, avatar):
            if chosen:
                page.locator("input[type=file]").set_input_files(chosen)
                page.wait_for_timeout(3000)
            for share in (0.1, 0.35, 0.5, 0.65):
                page.evaluate("(time) => { player.seek(player.starts.character + time); player.draw(); }",
                              share * motion.num_frames / motion.fps)  # fmt: skip
                page.wait_for_timeout(500)
                x, y, scale, _ = page.evaluate("(point) => player.stage.project(point)", middle.tolist())
                box = page.locator("#stage").bounding_box()
                clip = {"x": box["x"] + x - 0.7 * scale, "y": box["y"] + y - 1.15 * scale,
                        "width": 1.3 * scale, "height": 2.25 * scale}  # fmt: skip
                shots.append(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB"))
        browser.close()
    part = width // 4, round(width / 4 * shots[0].height / shots[0].width)
    whole = Image.new("RGB", (4 * part[0], 2 * part[1]))
    for index, shot in enumerate(shots):
        place = index % 4 * part[0], index // 4 * part[1]
        whole.paste(shot.resize(part, Image.Resampling.LANCZOS), place)
    return [whole]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", help="A report page, a live page's address, or a .vrm file.")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("character.webp"), help="The picture.")
    parser.add_argument("--words", default="Hello! Nice to meet you.", help="What is said to the live page.")
    parser.add_argument("--conversation", type=int, default=0, help="Number of the conversation, from 0.")
    parser.add_argument("--fps", type=float, default=12, help="Frames a second.")
    parser.add_argument("--width", type=int, default=880, help="Pixels.")
    parser.add_argument("--quality", type=int, default=55, help="Of WebP, 0 to 100.")
    args = parser.parse_args()
    if args.page.startswith("http"):
        first, *others = talk(args.page, args.words, args.width)
    elif args.page.endswith(".vrm"):
        first, *others = worn(Path(args.page), args.width)
    else:
        first, *others = frames(Path(args.page), args.conversation, args.fps, args.width)
    first.save(
        args.output, save_all=True, append_images=others, duration=round(1000 / args.fps), loop=0,
        quality=args.quality, method=6,
    )  # fmt: skip
    sys.stdout.write(f"{args.output}: {1 + len(others)} frames, {args.output.stat().st_size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
