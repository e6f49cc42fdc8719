"""The web application of `solami serve`: one page, one WebSocket, whether it lives, and its counts.

Who may connect is decided before anything is read: a token where one is set; else names of this machine only, so that
no page of another site gets here by a name that it has pointed at 127.0.0.1 (DNS rebinding). Browsers tell the site
that a WebSocket is opened from, and it has to be this one, or one of `origins`. No route takes a path.
"""

import asyncio
import hmac
import sys
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response

from ... import __version__
from ...report.live_page import live_page
from .camera_files import FILES
from .live_connection import LiveConnection, LiveService
from .live_files import recording
from .live_protocol import VERSION, Limits

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline' blob:; worker-src blob:; "
    "style-src 'unsafe-inline'; connect-src 'self' blob:; media-src blob:; img-src blob: data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors ",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Permissions-Policy": "microphone=(self)",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """Who may connect: with a `token` whoever sends it, as `?token=` or `Authorization: Bearer`. `origins` are other
    sites whose pages may connect, or show this one in a frame, as "https://talk.example.org" of a proxy before this
    server."""

    token: str | None = None
    origins: tuple[str, ...] = ()

    def __post_init__(self):
        for origin in self.origins:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query:
                raise ValueError(f"origins has {origin!r}, expected a scheme and a host, as in https://example.org")

    def refusal(self, headers: Mapping[str, str], query: Mapping[str, str]) -> tuple[int, str] | None:
        """HTTP status and message for a request that is not let in, else None."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and origin not in self.origins and urlsplit(origin).netloc != host:
            return 403, f"pages of {origin[:100]} may not connect here; start the server with --origins {origin[:100]}"
        if self.token is None:
            named = [*LOOPBACK, *(urlsplit(known).hostname for known in self.origins)]
            if urlsplit(f"//{host}").hostname not in named:
                return 403, f"{host[:100]} is no name of this machine; open http://127.0.0.1 instead, or set --token"
            return None
        kind, _, sent = headers.get("authorization", "").partition(" ")
        sent = sent if kind.lower() == "bearer" else query.get("token", "")
        if not hmac.compare_digest(sent.encode(), self.token.encode()):
            return 401, "a token is needed: open the address that the server showed when it started, with ?token=..."
        return None


def camera_headers(camera: str | Path) -> dict[str, str]:
    """`HEADERS` of a page that may load MediaPipe from this server, or from `CDN`, and run it."""
    source = "'self'" if isinstance(camera, Path) else camera
    policy = HEADERS["Content-Security-Policy"].replace("blob:;", f"blob: 'wasm-unsafe-eval' {source};", 1)
    policy = policy.replace("connect-src 'self'", f"connect-src 'self' {source}")
    return HEADERS | {"Content-Security-Policy": policy, "Permissions-Policy": "microphone=(self), camera=(self)"}


def live_app(service: LiveService, access: Access | None = None, camera: str | Path | None = None) -> FastAPI:
    """The application, to be run by uvicorn or any other ASGI server; `access` is by default that of this machine's
    own browsers and programs. By `camera`, the folder of MediaPipe's files or the address of them, the page can see a
    body."""
    access = access or Access()
    page = live_page("camera/" if isinstance(camera, Path) else camera)
    headers = camera_headers(camera) if camera else dict(HEADERS)
    headers["Content-Security-Policy"] += " ".join(access.origins) or "'none'"

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        yield
        await asyncio.to_thread(service.worker.shutdown)

    app = FastAPI(title="solami_hf", version=__version__, openapi_url=None, lifespan=lifespan)
    app.state.service = service
    app.add_middleware(GZipMiddleware, compresslevel=5)

    def refused(request: Request) -> Response | None:
        refusal = _refusal(access, request)
        return refusal and PlainTextResponse(refusal[1], refusal[0], headers)

    @app.get("/")
    def root(request: Request) -> Response:
        return refused(request) or HTMLResponse(page, headers=headers)

    if isinstance(camera, Path):

        @app.get("/camera/{name}")
        def camera_file(request: Request, name: str) -> Response:
            cached = HEADERS | {"Cache-Control": "private, max-age=86400"}
            unknown = PlainTextResponse("no such file", 404, HEADERS)
            found = FileResponse(camera / name, media_type=FILES[name], headers=cached) if name in FILES else unknown
            return refused(request) or found

    @app.get("/health")
    def health() -> Response:
        return JSONResponse({"status": "ok", "protocol": VERSION, "version": __version__})

    @app.get("/recordings/{number}")
    def sound(request: Request, number: int) -> Response:
        found = recording(number)
        told = PlainTextResponse(f"there is no recording {number}", 404, headers)
        return refused(request) or (Response(found, headers=headers, media_type="audio/ogg") if found else told)

    @app.get("/metrics")
    def metrics(request: Request) -> Response:
        media_type = "text/plain; version=0.0.4; charset=utf-8"
        return refused(request) or Response(service.metrics.text(), media_type=media_type)

    @app.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        if refusal := _refusal(access, socket):
            service.metrics.add("errors_total", code="refused")
            await socket.send_denial_response(PlainTextResponse(refusal[1], refusal[0]))
            return
        await socket.accept()
        await LiveConnection(socket, service).run()

    return app


def _refusal(access: Access, request: Request | WebSocket) -> tuple[int, str] | None:
    try:
        return access.refusal(request.headers, request.query_params)
    except ValueError:  # a host or origin that is no address
        return 403, "the Host or Origin header is no address"


class LiveServer(uvicorn.Server):
    """uvicorn, which says where the page is (with `access`) once it listens, and ends in peace; port 0 takes a free
    one."""

    def __init__(self, app: FastAPI, host: str, port: int, access: Access):
        # Frames are refused before they are read whole, and sound is no text to compress
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                access_log=False,
                log_level="warning",
                ws_max_size=2 * Limits().message_bytes,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=10,
                server_header=False,
            )
        )
        self.access, self.address = access, ""

    async def shutdown(self, sockets=None) -> None:
        """Lets answers that are being given end; a second signal does not wait for them."""
        closing = asyncio.create_task(self.config.app.state.service.close())
        while not (closing.done() or self.force_exit):
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)

    async def startup(self, sockets=None) -> None:
        """Begins to listen."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self.address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            token = f"/?token={self.access.token}" if self.access.token else ""
            sys.stdout.write(f"Talk at {self.address}{token} (Ctrl+C stops)\n")
            sys.stdout.flush()
