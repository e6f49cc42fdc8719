# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "soundfile", "websockets>=13"]
# ///
"""A client of `solami serve` without a browser: says words or sound files, writes the answers as wav and npz.

    solami serve &
    uv run examples/live_client.py "Hello! Who are you?" next.wav --output talk

Each turn becomes OUTPUT/turn1.wav, turn1.npz with `joints` (frames, 55, 3) in metres, y up, and their `fps`, and a
line of what was said and how soon. docs/serving.md tells the protocol.
"""

import argparse
import json
import struct
import sys
from pathlib import Path

import numpy as np
import soundfile
from websockets.sync.client import connect

HEAD = struct.Struct("<BId")  # kind, turn, seconds into the answer
SOUND_IN, SOUND_OUT, JOINTS_OUT = 1, 2, 3
RATE = 16_000


def say(socket, turn: str) -> None:
    """Sends a turn: a sound file in pieces of a second, or words."""
    if not Path(turn).is_file():
        socket.send(json.dumps({"type": "text", "text": turn}))
        return
    samples, rate = soundfile.read(turn, dtype="float32", always_2d=True)
    samples = samples.mean(axis=1)
    times = np.arange(int(len(samples) * RATE / rate)) * rate / RATE
    sound = np.rint(np.interp(times, np.arange(len(samples)), samples).clip(-1, 1) * 32767).astype("<i2")
    for start in range(0, len(sound), RATE):
        socket.send(HEAD.pack(SOUND_IN, 0, 0.0) + sound[start : start + RATE].tobytes())
    socket.send(json.dumps({"type": "audio_end"}))


def hear(socket) -> tuple[dict, str, np.ndarray, np.ndarray]:
    """An answer: its `end`, words, sound (samples,) int16 and joints (frames, 55, 3); RuntimeError for a bad turn."""
    words, sound, joints = "", [np.zeros(0, "<i2")], [np.zeros((0, 55, 3), "<f4")]
    for frame in socket:
        if isinstance(frame, bytes):
            kind, _, _ = HEAD.unpack_from(frame)
            if kind == SOUND_OUT:
                sound.append(np.frombuffer(frame, "<i2", offset=HEAD.size))
            elif kind == JOINTS_OUT:
                joints.append(np.frombuffer(frame, "<f4", offset=HEAD.size).reshape(-1, 55, 3))
            continue
        event = json.loads(frame)
        if event["type"] == "text":
            words += event["text"]
        elif event["type"] == "transcript":
            print("you:", event["text"])
        elif event["type"] == "error":
            raise RuntimeError(f"{event['code']}: {event['message']}")
        elif event["type"] == "end":
            return event, words, np.concatenate(sound), np.concatenate(joints)
    raise RuntimeError("the server ended the connection")


def main(argv: list[str] | None = None) -> int:
    """Talks, turn after turn; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("turns", nargs="+", help="words, or the name of a sound file")
    parser.add_argument("--url", default="ws://127.0.0.1:8080/ws")
    parser.add_argument("--token", help="where the server asks for one")
    parser.add_argument("--character")
    parser.add_argument("--voice")
    parser.add_argument("--output", type=Path, default=Path("talk"))
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    headers = {"Authorization": f"Bearer {args.token}"} if args.token else {}
    with connect(args.url, additional_headers=headers, max_size=None) as socket:
        start = {"type": "start", "version": 1, "character": args.character, "voice": args.voice}
        socket.send(json.dumps(start))
        info = json.loads(socket.recv())
        while info["type"] == "state":  # others are before us
            info = json.loads(socket.recv())
        if info["type"] == "error":
            print(f"{info['code']}: {info['message']}", file=sys.stderr)
            return 1
        for number, turn in enumerate(args.turns, 1):
            say(socket, turn)
            end, words, sound, joints = hear(socket)
            print(f"{info['characters'].get(info['character'], 'character')}: {words}", end["timings"])
            if end["valid"]:
                soundfile.write(args.output / f"turn{number}.wav", sound, info["sampling_rate"])
                np.savez(args.output / f"turn{number}.npz", joints=joints, fps=info["fps"])
            else:
                print(f"(no answer: {end['reason']})", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
