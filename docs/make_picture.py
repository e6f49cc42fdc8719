"""Draws the README's pictures in a headless browser: a round of a report page, frame by frame, or the live page.

    python docs/make_picture.py runs/demo/report.html --output docs/character.webp
    python docs/make_picture.py http://127.0.0.1:8080 --output docs/live.webp       # `solami serve` runs there

Needs `pip install playwright pillow` and Debian's `chromium`.
"""

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright


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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", help="A report page, for example runs/demo/report.html, or a live page's address.")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("character.webp"), help="The picture.")
    parser.add_argument("--words", default="Hello! Nice to meet you.", help="What is said to the live page.")
    parser.add_argument("--conversation", type=int, default=0, help="Number of the conversation, from 0.")
    parser.add_argument("--fps", type=float, default=12, help="Frames a second.")
    parser.add_argument("--width", type=int, default=880, help="Pixels.")
    parser.add_argument("--quality", type=int, default=55, help="Of WebP, 0 to 100.")
    args = parser.parse_args()
    if args.page.startswith("http"):
        first, *others = talk(args.page, args.words, args.width)
    else:
        first, *others = frames(Path(args.page), args.conversation, args.fps, args.width)
    first.save(
        args.output, save_all=True, append_images=others, duration=round(1000 / args.fps), loop=0,
        quality=args.quality, method=6,
    )  # fmt: skip
    sys.stdout.write(f"{args.output}: {1 + len(others)} frames, {args.output.stat().st_size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
