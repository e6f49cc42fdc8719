"""`solami serve`: a page to talk to a character in the browser, and a WebSocket for other programs.

    solami serve                                          # the packaged character, at http://127.0.0.1:8080
    solami serve runs/demo/checkpoint --character ada --port 9000
    solami serve CKPT --host 0.0.0.0 --token SECRET --origins https://talk.example.org      # behind a proxy with TLS

Sound goes both ways, words and motion come back while they are made; docs/serving.md tells the protocol. Nothing of a
conversation is kept on a disk. Browsers give a microphone to pages of this machine, and else to https only.
"""

import os
from dataclasses import dataclass
from importlib.util import find_spec

from ...command_line import option, parse_arguments
from ..folder.generate import TalkingArguments

TOKEN = "SOLAMI_TOKEN"
"""Environment variable with the token, which a list of processes does not show."""


@dataclass
class ServeArguments(TalkingArguments):
    """Arguments of `solami serve`: the character, who may talk to it, and how much."""

    host: str = option("127.0.0.1", "Address to listen at; any but this machine's needs --token or --public.")
    port: int = option(8080, "Port to listen at; 0 takes a free one.")
    token: str | None = option(None, "Word that clients have to send, as ?token=WORD; by default SOLAMI_TOKEN's.")
    public: bool = option(False, "Anyone may come in at the addresses of --origins where there is no token.")
    origins: list[str] = option([], "Other sites that may connect or frame the page, as https://talk.example.org.")
    character: str | None = option(None, "The one to begin with; by default the first.")
    camera: str = option(
        "off",
        "Whether the page can see a body: off; local, by MediaPipe's files, which are loaded from npm "
        "once (53 MB); or cdn, where each browser loads them from jsDelivr.",
    )
    max_sessions: int = option(4, "Conversations at once; others wait for a place, in order.")
    idle_seconds: float = option(600.0, "A client that is silent for so long is let go.")
    turn_seconds: float = option(30.0, "Longest sound of a turn.")
    history_turns: int = option(32, "Turns of a conversation that are remembered.")
    wait_seconds: float = option(120.0, "A turn that others keep waiting for so long is told that all are busy.")
    resume_seconds: float = option(120.0, "A conversation is kept for so long after its connection was lost.")
    batch: int = option(4, "Turns that are answered at once, in one batch.")


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit code."""
    (args,) = parse_arguments([ServeArguments], argv, "solami serve", __doc__, words=["checkpoint"])
    missing = [name for name in ("fastapi", "uvicorn", "websockets") if find_spec(name) is None]
    if missing:
        raise ValueError(f"{' and '.join(missing)} missing; pip install 'solami_hf[serve]'")
    from ..loading import fitting_threads
    from .camera_files import CDN, camera_folder
    from .live_server import LOOPBACK, Access, LiveServer, live_app

    token = args.token or os.environ.get(TOKEN) or None
    if args.host not in LOOPBACK and not token and not (args.public and args.origins):
        raise ValueError(
            f"host {args.host} lets other machines in; give --token, or leave --host out (behind a proxy too), or let "
            "anyone in with --public and the address in --origins"
        )
    if not 0 <= args.port <= 65535:
        raise ValueError(f"port is {args.port}, expected 0 to 65535")
    if args.camera not in ("off", "local", "cdn"):
        raise ValueError(f"camera is {args.camera!r}, expected off, local or cdn")
    camera = camera_folder() if args.camera == "local" else CDN if args.camera == "cdn" else None
    access = Access(token, tuple(args.origins))
    service = _service(args)
    with fitting_threads(service.pipeline):
        try:
            LiveServer(live_app(service, access, camera), args.host, args.port, access).run()
        except KeyboardInterrupt:  # uvicorn raises it again when all is closed
            pass
    return 0


def _service(args: ServeArguments):
    """The model, loaded once, and warm: the first client does not wait for the recogniser."""
    import torch

    from .live_connection import LiveService
    from .live_protocol import Limits

    sampling = args.sampling
    names = ("turn_seconds", "history_turns", "idle_seconds", "wait_seconds", "resume_seconds")
    limits = Limits(**{name: getattr(args, name) for name in names})
    pipeline = args.load_pipeline(args.max_new_tokens)
    processor = pipeline.processor
    if args.character is not None:
        processor.character_system(args.character)  # fail now
    character = args.character or next(iter(processor.characters), None)
    if processor.hearing != "codes":
        try:
            _ = pipeline.asr
        except ImportError as error:
            raise ValueError(f"this checkpoint reads what is said as words: {error}") from None
    torch.manual_seed(args.seed)
    return LiveService(pipeline, character, limits, args.max_sessions, sampling, batch=args.batch)
