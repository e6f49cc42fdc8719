"""Draws the README's moving picture: a round of a report page, frame by frame in a headless browser.

    python docs/make_picture.py runs/demo/report.html --output docs/character.webp

Needs `pip install playwright pillow` and Debian's `chromium`.
"""

import argparse
import io
import shutil
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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="A report page, for example runs/demo/report.html.")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("character.webp"), help="The picture.")
    parser.add_argument("--conversation", type=int, default=0, help="Number of the conversation, from 0.")
    parser.add_argument("--fps", type=float, default=12, help="Frames a second.")
    parser.add_argument("--width", type=int, default=880, help="Pixels.")
    parser.add_argument("--quality", type=int, default=55, help="Of WebP, 0 to 100.")
    args = parser.parse_args()
    first, *others = frames(args.report, args.conversation, args.fps, args.width)
    first.save(
        args.output, save_all=True, append_images=others, duration=round(1000 / args.fps), loop=0,
        quality=args.quality, method=6,
    )  # fmt: skip
    print(f"{args.output}: {1 + len(others)} frames, {args.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
