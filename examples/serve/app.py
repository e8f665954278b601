"""A web service around an exported network: `uvicorn --factory app:create`. README.md says how to call it."""

import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pydantic
from batcher import Batcher, FullError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from network import FLOAT, INT8, Network, Text
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclasses.dataclass(frozen=True)
class Settings:
    """Read from the environment: `SERVE_MODEL` sets `model`, and so on.

    Attributes:
        model: the folder of an export with --format onnx.
        int8: 1 serves model_int8.onnx, whose answers differ slightly; 0 serves model.onnx.
        threads: of ONNX Runtime; 0 takes all cores.
        batch: texts that are run together, at most.
        wait_ms: milliseconds that a text waits for others, at most.
        waiting: texts that may wait for an answer; more are refused with 503.
        texts: texts in a request, at most.
        characters: characters in a text, at most. The network reads only the beginning of a long text.
    """

    model: str
    int8: int = 0
    threads: int = 0
    batch: int = 32
    wait_ms: int = 5
    waiting: int = 1024
    texts: int = 64
    characters: int = 20_000

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Raises ValueError for a setting that is missing, has no such name, or no such value."""
        given = {name[6:].lower(): value for name, value in environment.items() if name.startswith("SERVE_")}
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(given) - set(fields))
        if unknown or not given.get("model"):
            what = f"there is no setting SERVE_{unknown[0].upper()}" if unknown else "SERVE_MODEL is not set"
            raise ValueError(f"{what}; there are {', '.join(f'SERVE_{name.upper()}' for name in fields)}")
        values: dict[str, Any] = {}
        for name, text in given.items():
            if name != "model" and not (text.isascii() and text.isdigit()):
                raise ValueError(f"SERVE_{name.upper()} must be a whole number; got {text!r}")
            values[name] = text if name == "model" else int(text)
        return cls(**values)

    def __post_init__(self) -> None:
        if min(self.batch, self.waiting, self.texts, self.characters) < 1 or self.int8 > 1:
            raise ValueError("SERVE_INT8 is 0 or 1; SERVE_BATCH, _WAITING, _TEXTS and _CHARACTERS are at least 1")
        if self.texts > self.waiting:
            raise ValueError(f"a request of {self.texts} texts never fits into SERVE_WAITING={self.waiting}")

    @property
    def largest_body(self) -> int:
        """Bytes of a request: a character takes 12 at most, as \\ud83d\\ude00."""
        return 2 * 12 * self.texts * self.characters + 10_000


class Texts(pydantic.BaseModel):
    """The body of a request: one text or several, each with a second sentence if the network reads pairs."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    text: str | list[str]
    text2: str | list[str] | None = None


class RefusedError(Exception):
    """A request that is not answered: the status, and why."""

    def __init__(self, status: int, why: str):
        super().__init__(why)
        self.status = status


def create() -> FastAPI:
    settings = Settings.read(os.environ)
    network = Network(Path(settings.model), INT8 if settings.int8 else FLOAT, settings.threads)
    batcher = Batcher(network, settings.batch, settings.wait_ms / 1000, settings.waiting)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with batcher.running():
            await batcher.answer([("a", "b") if network.takes_pairs else "a"])  # the first answer is the slowest
            yield

    app = FastAPI(title="dynabert_jax", lifespan=lifespan)
    app.add_middleware(BodyLimit, largest=settings.largest_body)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process is alive."""
        return {"status": "alive"}

    @app.get("/ready")
    async def ready() -> dict[str, Any]:
        """Requests are answered: the network is loaded, and not too many texts are waiting."""
        if batcher.is_full:
            raise RefusedError(503, "too many texts are waiting")
        return {"status": "ready", "labels": network.labels, "pairs": network.takes_pairs}

    @app.post("/predict")
    async def predict(body: Texts) -> dict[str, Any]:
        """One prediction for each text, in their order."""
        try:
            return {"predictions": await batcher.answer(taken(body, network.takes_pairs, settings))}
        except FullError:
            raise RefusedError(503, "too many texts are waiting; try again later") from None

    @app.exception_handler(RefusedError)
    async def refuse(_: Request, error: RefusedError) -> JSONResponse:
        headers = {"Retry-After": "1"} if error.status == 503 else None
        return JSONResponse({"error": str(error)}, error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def explain(_: Request, error: RequestValidationError) -> JSONResponse:
        """Says what is wrong and where, without repeating what was sent."""
        found = [f"{'.'.join(map(str, one['loc'][1:])) or 'body'}: {one['msg']}" for one in error.errors()]
        return JSONResponse({"error": "; ".join(found)}, 422)

    @app.exception_handler(Exception)
    async def fail(_: Request, __: Exception) -> JSONResponse:
        """The log has the traceback."""
        return JSONResponse({"error": "the service failed; its log says why"}, 500)

    return app


def taken(body: Texts, pairs: bool, settings: Settings) -> list[Text]:
    """The texts of a request.

    Raises:
        RefusedError: there are none or too many, one is too long, or they are not what the network reads.
    """
    firsts = [body.text] if isinstance(body.text, str) else body.text
    seconds = [body.text2] if isinstance(body.text2, str) else body.text2
    if (seconds is not None) != pairs:
        needed = "pairs: give text and text2" if pairs else "single texts: leave text2 out"
        raise RefusedError(422, f"this network reads {needed}")
    if seconds is not None and (len(firsts) != len(seconds) or type(body.text) is not type(body.text2)):
        raise RefusedError(422, f"text and text2 must be as many; got {len(firsts)} and {len(seconds)}")
    if not 1 <= len(firsts) <= settings.texts:
        raise RefusedError(422, f"a request has 1 to {settings.texts} texts; got {len(firsts)}")
    sentences = [*firsts, *(seconds or [])]
    if not all(map(is_unicode, sentences)):
        raise RefusedError(422, "a text has half of a surrogate pair (such as \\ud800 alone), which is no character")
    longest = max(map(len, sentences))
    if longest > settings.characters:
        raise RefusedError(422, f"a text has at most {settings.characters:,} characters; got {longest:,}")
    return list(firsts) if seconds is None else list(zip(firsts, seconds, strict=True))


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded. JSON may have half a surrogate pair, on which the tokenizer would fail."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class BodyLimit:
    """Refuses a body that is too large, before it is in memory as a whole, whether or not its length is announced."""

    def __init__(self, app: ASGIApp, largest: int):
        self.app, self.largest = app, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":  # the client has left
                return
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            if size > self.largest:
                refusal = JSONResponse({"error": f"a request has at most {self.largest:,} bytes"}, 413)
                await refusal(scope, receive, send)
                return
        whole: Message = {"type": "http.request", "body": b"".join(parts), "more_body": False}
        first = iter([whole])

        async def received() -> Message:
            return next(first, None) or await receive()

        await self.app(scope, received, send)
