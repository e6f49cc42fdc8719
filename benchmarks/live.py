"""`solami serve` as people meet it: how soon it answers, how many, for how long, and what a crash costs.

    python -m benchmarks.live [--checkpoint CKPT] [--only latency hands_free load memory equal faults] [--quick]

A real server, by default with the packaged character, and clients that talk to it over WebSocket:

| part | what |
|---|---|
| latency | turns of research/packaged_character/unscripted.txt, spoken by an offline voice (`hibari-tts`) in real time, every fifth one typed: seconds from a turn's end to the first word, sound and motion and to the answer's end; of answers whose sound a player holds for 0.3 to 1.2 s as the page does (first heard: `heard`), the share that has no silence within a sentence and none over 0.4 s more between two (`without_gap`), that never waits for a piece (`without_wait`), and the latter when it is held for 0.1 s alone (`without_hold`); `ahead` is how long after its first piece a player has to begin to never wait |
| hands_free | the same, where the server hears when a spoken turn ends (0.7 s of silence), from the end of its sound |
| load | 1, 4 and 16 conversations at once: answers a minute, latency, the server's memory |
| memory | the server's memory over the turns of one conversation |
| equal | whether words, sound and motion are those of `DialogueSession.stream` on the same seed, and by how much the times of pieces drift from what came before them, sound's against motion's |
| faults | connections cut in every state beside one that talks on, 200 bad messages, sound at many times its speed, and kill -9 in mid-answer with a restart |

Everywhere each client checks what it gets: turns are its own, words come back as they were typed, pieces follow each
other, and the code word of another conversation is nowhere. The last line is one JSON object.
"""  # noqa: E501

import argparse
import asyncio
import json
import logging
import os
import random
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import torch
from websockets.exceptions import ConnectionClosed

from benchmarks.live_clients import Client, Server, figures, memory
from solami_hf.command_line import parse_arguments, run_command
from solami_hf.generation import DialogueSession
from solami_hf.generation.live.live_protocol import MICROPHONE_RATE, MOTIONS, SOUND_IN
from solami_hf.generation.live.live_protocol import sound_frame as to_frame
from solami_hf.generation.live.serve import ServeArguments
from solami_hf.generation.live.voice_activity import can_detect
from solami_hf.generation.loading import fitting_threads
from solami_hf.processing.audio.speech_voices import speak
from solami_hf.processing.audio.waveforms import read_audio
from solami_hf.processing.motion.body import joint_positions

logger = logging.getLogger("benchmarks.live")
PARTS = ("latency", "hands_free", "load", "memory", "equal", "faults")
LINES = Path(__file__).parents[1] / "research/packaged_character/unscripted.txt"
TALK = 10  # turns of a conversation; then another begins


def spoken_turns(count: int, typed: int = 5) -> list[str | np.ndarray]:
    """Turns as sound (samples,) at 16 kHz, every `typed`th one as words; words only where no voice is installed."""
    lines = [line for line in LINES.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    turns: list = [lines[i % len(lines)] for i in range(count)]
    for i in range(count):
        if i % typed != typed - 1:
            try:
                wave, rate = speak("heart", turns[i])
            except ImportError as error:
                logger.warning("all turns are typed: %s", error)
                break
            turns[i] = read_audio(wave, MICROPHONE_RATE, source_rate=rate)
    return turns


async def latency(url: str, turns: list[str | np.ndarray], hands_free: bool = False) -> dict:
    """One client, turn after turn."""
    answers = []
    async with Client(url) as client:
        for number, turn in enumerate(turns):
            if number % TALK == 0:
                await client.start()
            if hands_free and not number:
                await client.listen()
            await client.say(turn)
            answers.append(await client.answer())
            if (number + 1) % TALK == 0:
                logger.info("%d turns: %s", number + 1, {part: f"{s:.2f}" for part, s in answers[-1].first.items()})
    spoken = sum(not isinstance(turn, str) for turn in turns)
    seconds = float(np.mean([answer.end["seconds"] for answer in answers]))
    return {"spoken": spoken, "answer_seconds": round(seconds, 2), **figures(answers)}


async def load(url: str, pid: int, clients: int, seconds: float, lines: list[str]) -> dict:
    """Several clients at once; each says its code word in every turn, and half of them get parameters."""
    words = _code_words(clients)
    before, begun, answers = memory(pid), time.perf_counter(), []

    async def talk(number: int) -> None:
        foreign = tuple(word for word in words if word != words[number])
        async with Client(url, foreign, motion=list(MOTIONS)[number % 2]) as client:
            turns = 0
            while time.perf_counter() - begun < seconds:
                if turns % TALK == 0:
                    await client.start()
                await client.say(f"My code word is {words[number]}. {lines[(number + turns) % len(lines)]}")
                answers.append(await client.answer())
                turns += 1

    await asyncio.gather(*map(talk, range(clients)))
    minutes = (time.perf_counter() - begun) / 60
    given = sum(not answer.busy for answer in answers)
    told = {"answers_per_minute": round(given / minutes, 2), **figures(answers)}
    return told | {"memory_before_mb": round(before, 1), "memory_after_mb": round(memory(pid), 1)}


def _code_words(count: int) -> list[str]:
    rng, parts = random.Random(count), ("bdfgk", "aeiou", "lmnpr", "aeiou", "stvxz")
    return [f"{''.join(map(rng.choice, parts))}{number}" for number in range(count)]


async def memory_over_turns(url: str, pid: int, lines: list[str], turns: int) -> dict:
    """The server's memory in one conversation: after the first tenth of the turns, at the end, and its slope."""
    found, answers = [], []
    async with Client(url) as client:
        await client.start()
        for number in range(turns):
            await client.say(lines[number % len(lines)])
            answers.append(await client.answer())
            found.append(memory(pid))
            if number % 10 == 9:
                print(f"turn {number + 1}: {found[-1]:.0f} MB", file=sys.stderr, flush=True)
    warm = found[len(found) // 10 :]
    slope = float(np.polyfit(range(len(warm)), warm, 1)[0]) if len(warm) > 1 else 0.0
    told = {"first_mb": round(warm[0], 1), "last_mb": round(warm[-1], 1), "peak_mb": round(max(found), 1)}
    return told | {"kb_per_turn": round(1024 * slope, 1), **figures(answers)}


async def equal(url: str, session: DialogueSession, sampling: dict, lines: list[str], seconds: float) -> dict:
    """Answers of a server that was just started beside those of a session on the same seed, for so many seconds."""
    same, drift, off, length, answers = 0, [], 0.0, 0.0, []
    async with Client(url) as client:
        rates = (await client.start()).info["sampling_rate"], client.info["fps"]
        while length < seconds:
            line = lines[len(answers) % len(lines)]
            await client.say(line)
            answer = await client.answer()
            *_, last = session.stream([{"type": "text", "text": line}], **sampling)
            reply, (sound, joints) = last.reply, answer.media()
            wanted = np.rint(np.clip(reply.audio, -1, 1) * 32767), joint_positions(reply.motion)
            shapes = sound.shape == wanted[0].shape and joints.shape == wanted[1].shape
            if shapes:
                off = max(off, float(np.abs(joints - wanted[1]).max()))
            same += shapes and np.array_equal(sound, wanted[0]) and off < 1e-3 and answer.text.strip() == reply.text
            # What sound and motion are late against their own pieces, piece by piece over all answers
            clocks = [
                _lateness(pieces, rate) for pieces, rate in zip((answer.sound, answer.motion), rates, strict=True)
            ]
            drift += [abs(a - b) for a in clocks[0] for b in (min(clocks[1]), max(clocks[1]))]
            length += max(answer.end["seconds"], 0.1)
            answers.append(answer)
    told = {"answers": len(answers), "equal": int(same), "seconds": round(length, 1), "joints_off_m": off}
    wrong = [told for answer in answers for told in answer.wrong]
    return told | {"drift_ms": round(1000 * max(drift), 3), "wrong": wrong}


def _lateness(pieces: list, rate: float) -> list[float]:
    """Seconds by which each piece's own time differs from the length of all before it."""
    ends = np.cumsum([0, *(len(values) for *_, values in pieces)]) / rate
    return [start - end for (_, start, _), end in zip(pieces, ends, strict=False)]


STATES = ("connected", "waiting", "listening", "sending", "hearing", "thinking", "speaking", "interrupted")


async def cut(url: str, state: str, sound: np.ndarray, places: int) -> None:
    """A connection that breaks off in a state, without a word of goodbye."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(url))
        if state == "waiting":
            for _ in range(places):
                await (await stack.enter_async_context(Client(url))).start()
            await client.send(type="start")
            await client.until("state", state="waiting")
            client.socket.transport.abort()
            return
        if state != "connected":
            await client.start()
        if state == "hearing":
            await client.send(type="listen", hands_free=True)
        if state in ("sending", "hearing"):
            await client.socket.send(to_frame(SOUND_IN, 0, 0.0, sound))
            await (client.until("state", state="hearing") if state == "hearing" else asyncio.sleep(0.1))
        if state in ("thinking", "speaking", "interrupted"):
            await client.send(type="text", text="Tell me a story.")
            await client.until("state", state="thinking" if state == "thinking" else "speaking")
        if state == "interrupted":
            await client.send(type="interrupt")
        client.socket.transport.abort()


async def faults(url: str, lines: list[str], sound: np.ndarray, places: int) -> dict:
    """What others do wrong beside a client that talks on, at a server with so many places."""
    done, answers, told = asyncio.Event(), [], {"cut": []}

    async def talk(client: Client) -> None:
        while not done.is_set():
            await client.say(lines[len(answers) % len(lines)])
            answers.append(await client.answer())

    async with Client(url) as beside:
        await beside.start()
        talking = asyncio.create_task(talk(beside))
        for state in STATES:
            if state != "hearing" or (can_detect() and sound.any()):
                await cut(url, state, sound, places - 1)
                told["cut"].append(state)
        told["bad_messages_closed"] = await _bad_messages(url)
        async with Client(url) as client:  # as fast as it can be sent
            await client.start()
            for _ in range(60):
                await client.socket.send(to_frame(SOUND_IN, 0, 0.0, np.zeros(MICROPHONE_RATE)))
            told["flood"] = (await client.until("error"))["code"]
        done.set()
        await talking
    deadline = time.monotonic() + 60
    while (left := await asyncio.to_thread(_connections, url)) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    return told | {"connections_left": left, "beside": figures(answers)}


async def _bad_messages(url: str) -> int:
    """How many connections 200 seeded bad messages cost."""
    rng, closed, left = random.Random(0), 0, 200
    while left:
        async with Client(url) as client:
            try:
                await client.start()
                while left:
                    left -= 1
                    text = json.dumps({"type": rng.choice(["text", "listen", "x", 1]), "a": rng.random()})
                    await client.socket.send(rng.choice([rng.randbytes(30), text, text[: rng.randrange(len(text))]]))
                    await client.until("error")
            except ConnectionClosed:
                closed += 1
    return closed


def _connections(url: str) -> int:
    text = urlopen(f"{url}/metrics", timeout=30).read().decode()
    return int(float(text.split("\nsolami_connections ")[1].split()[0]))


async def killed(server: Server, words: list[str]) -> tuple[dict, Server]:
    """kill -9 in mid-answer, and the server that is started in its place."""
    async with Client(server.url) as client:
        await client.start()
        await client.say("Tell me a story.")
        await client.until("state", state="speaking")
        server.stop(kill=True)
        begun = time.perf_counter()
        try:
            while True:
                await client.next()
        except ConnectionClosed:
            noticed = time.perf_counter() - begun
    again = Server(words, int(server.url.rsplit(":", 1)[1]))
    async with Client(again.url) as client:
        await client.start()
        await client.say("Hello!")
        answer = await client.answer()
    told = {"error_after_kill_s": round(noticed, 3), "restart_s": round(again.seconds, 1)}
    return told | {"valid_after_restart": answer.end["valid"], "wrong": answer.wrong}, again


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="by default the packaged character")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--turns", type=int, default=50, help="of latency")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 4, 16], help="of load")
    parser.add_argument("--seconds", type=float, default=120, help="of load")
    parser.add_argument("--memory_turns", type=int, default=200)
    parser.add_argument("--equal_seconds", type=float, default=60, help="of answers that are compared")
    parser.add_argument("--quick", action="store_true", help="small counts, to see that it runs")
    parser.add_argument(
        "--serve", nargs="+", default=[], metavar="WORD", help="more options of the server, without --"
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    if args.quick:
        args.turns, args.sessions, args.seconds, args.memory_turns, args.equal_seconds = 5, [1, 2], 10, 5, 4
    words = [args.checkpoint] if args.checkpoint else []
    words += [f"--{word}" if i % 2 == 0 else word for i, word in enumerate(args.serve)]
    lines, told = [turn for turn in spoken_turns(40, 1) if isinstance(turn, str)], {}
    for part in args.only:
        most = 2 if part == "faults" else max(args.sessions)
        server = Server([*words, "--max_sessions", str(most)])
        try:
            if part == "latency":
                told[part] = asyncio.run(latency(server.url, spoken_turns(args.turns)))
            elif part == "hands_free":
                spoken = spoken_turns(args.turns, args.turns + 1)
                told[part] = asyncio.run(latency(server.url, spoken, hands_free=True))
            elif part == "load":
                told[part] = {}
                for clients in args.sessions:
                    found = asyncio.run(load(server.url, server.pid, clients, args.seconds, lines))
                    told[part][str(clients)] = found
                    logger.info("%d at once: %s", clients, json.dumps(found))
            elif part == "memory":
                told[part] = asyncio.run(memory_over_turns(server.url, server.pid, lines, args.memory_turns))
            elif part == "equal":
                told[part] = _equal(server.url, words, lines, args.equal_seconds)
            else:
                sound = next(
                    (turn for turn in spoken_turns(1) if not isinstance(turn, str)), np.zeros(MICROPHONE_RATE)
                )
                told[part] = asyncio.run(faults(server.url, lines, sound, most))
                after, server = asyncio.run(killed(server, [*words, "--max_sessions", "2"]))
                told[part] |= after
        finally:
            server.stop()
        logger.info("%s: %s", part, json.dumps(told[part]))
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


def _equal(url: str, words: list[str], lines: list[str], seconds: float) -> dict:
    """The server's answers beside those of the same model in this process."""
    (serving,) = parse_arguments([ServeArguments], words, "solami serve", words=["checkpoint"])
    pipeline = serving.load_pipeline(serving.max_new_tokens)
    character = next(iter(pipeline.processor.characters), None)
    with fitting_threads(pipeline):
        torch.manual_seed(serving.seed)
        session = DialogueSession(pipeline, character)
        return asyncio.run(equal(url, session, serving.sampling, lines, seconds))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(run_command("benchmarks.live", main))
