"""A service that answers for two models: what a digit is, and how a text goes on.

`python -m service.app --models FOLDER --model NAME --sha256 HASH`, run beside this folder,
listens on 127.0.0.1 and prints its port as one line of JSON. The folder holds `NAME.onnx`,
`trial.npz` (arrays `images` and `labels` that a model must get right before it serves) and, for
text, `text.onnx` and `tokenizer.json`. Swapping models asks for the token that the environment
variable SERVICE_TOKEN holds.

Every answer names the hash of the model that computed it. What cannot be read is answered with
a status from 400 to 499, what there is no time for with 429 or 503 and the seconds after which
to come back.
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import json
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tokenizers
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import iterate_in_threadpool
from starlette.types import Receive, Scope, Send

from .batching import BatchSettings, MicroBatcher, RefusedError
from .guard import HASH_HEADER, Guard, Limits, list_handlers
from .metrics import CONTENT_TYPE, Metrics
from .models import NAME, Model, ModelStore, TextModel, load_model

HOST = "127.0.0.1"
ROWS = 28

Pixel = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Row = Annotated[list[Pixel], Field(min_length=ROWS, max_length=ROWS)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Strict(BaseModel):
    """A body with these fields and no others; text is no number, and true is not 1."""

    model_config = ConfigDict(extra="forbid", strict=True)


class DigitRequest(Strict):
    """An image of a digit."""

    image: Annotated[list[Row], Field(min_length=ROWS, max_length=ROWS)]


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    sha256: Sha256


class DigitAnswer(BaseModel):
    """The digit, how probable each was, and which model says so."""

    digit: int
    probabilities: list[float]
    model: ModelName


class TextRequest(Strict):
    """A text and how far it is to be continued."""

    prompt: Annotated[str, Field(min_length=1, max_length=4000)]
    num_tokens: Annotated[int, Field(ge=1, le=120)] = 40
    temperature: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class ActivateRequest(Strict):
    """A model and the hash that its file must have."""

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    sha256: Sha256


class _Slot(StreamingResponse):
    """A stream that gives its place back however it ends, also if nobody listened."""

    def __init__(self, *given: Any, slots: threading.Semaphore, **options: Any) -> None:
        super().__init__(*given, **options)
        self._slots = slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._slots.release()


def build_app(
    store: ModelStore,
    *,
    text: TextModel | None = None,
    batching: BatchSettings | None = None,
    limits: Limits | None = None,
    token: str = "",
) -> Guard:
    """Builds the service.

    Args:
        store: the model that serves digits, already activated.
        text: the language model, if there is one.
        batching: bounds of the queue.
        limits: bounds of a request.
        token: what a request must know to swap models; without one nobody can.

    Returns:
        An application of ASGI.
    """
    bounds, metrics = limits or Limits(), Metrics()

    def predict(images: list[np.ndarray]) -> list[tuple[np.ndarray, Model]]:
        model = store.current  # once: the batch belongs to this model whatever happens now
        return [(row, model) for row in model.predict(np.stack(images))]

    batcher = MicroBatcher(predict, batching or BatchSettings(), on_batch=metrics.batch_size.add)

    @contextlib.asynccontextmanager
    async def run_batcher(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await batcher.close()

    app = FastAPI(
        title="digits and texts",
        lifespan=run_batcher,
        docs_url=None,  # those pages load their scripts from elsewhere
        redoc_url=None,
        exception_handlers=list_handlers(),
    )

    @app.post("/digits")
    async def answer_digit(request: DigitRequest, response: Response) -> DigitAnswer:
        image = np.asarray(request.image, np.float32).reshape(store.image_shape)
        probabilities, model = await batcher.submit(image)
        response.headers[HASH_HEADER] = model.sha256
        return DigitAnswer(
            digit=int(probabilities.argmax()),
            probabilities=probabilities.tolist(),
            model=ModelName(**model.describe()),
        )

    @app.get("/health")
    async def answer_health() -> dict[str, Any]:
        return {"status": "ready", "model": store.current.describe()}

    @app.get("/metrics")
    async def answer_metrics() -> Response:
        gauges = {
            "service_queue_length": float(batcher.queue_length),
            "service_cpu_seconds": time.process_time(),
        }
        written = metrics.write(gauges, store.current.describe())
        return PlainTextResponse(written, media_type=CONTENT_TYPE)

    _add_swaps(app, store, metrics=metrics, token=token)
    if text is not None:
        _add_text(app, text, max_streams=bounds.max_streams)
    # Around everything, so that the answer to a fault is counted and named, too.
    return Guard(app, store=store, metrics=metrics, limits=bounds)


def _add_swaps(app: FastAPI, store: ModelStore, *, metrics: Metrics, token: str) -> None:
    def require_token(authorization: Annotated[str, Header()] = "") -> None:
        given, wanted = authorization.encode(), f"Bearer {token}".encode()
        if not token or not hmac.compare_digest(given, wanted):
            raise HTTPException(
                401, "swapping models needs the token", {"WWW-Authenticate": "Bearer"}
            )

    # Plain functions run in a thread: a model loads while the service answers.
    @app.post("/models/activate", dependencies=[Depends(require_token)])
    def activate(request: ActivateRequest) -> ModelName:
        model = store.activate(request.name, sha256=request.sha256)
        metrics.swaps["activated"] += 1
        return ModelName(**model.describe())

    @app.post("/models/rollback", dependencies=[Depends(require_token)])
    def roll_back() -> ModelName:
        model = store.roll_back()
        metrics.swaps["rolled back"] += 1
        return ModelName(**model.describe())


def _add_text(app: FastAPI, text: TextModel, *, max_streams: int) -> None:
    slots = threading.Semaphore(max_streams)

    @app.post("/text")
    async def continue_text(request: TextRequest) -> Response:
        try:
            tokens = text.encode(request.prompt, num_tokens=request.num_tokens)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        if not slots.acquire(blocking=False):
            raise RefusedError("too many texts are written", status=429, retry_after_seconds=1)
        pieces = text.stream(
            tokens,
            num_tokens=request.num_tokens,
            temperature=request.temperature,
            seed=request.seed,
        )
        return _Slot(
            _write_events(pieces, text.model),
            slots=slots,
            media_type="text/event-stream",
            headers={HASH_HEADER: text.model.sha256, "Cache-Control": "no-store"},
        )


async def _write_events(pieces: Iterator[str], model: Model) -> AsyncIterator[str]:
    """One event for each piece of text, and a last one, without which it is not whole."""
    async for piece in iterate_in_threadpool(pieces):
        yield f"data: {json.dumps({'text': piece})}\n\n"
    yield f"data: {json.dumps({'done': True, 'model': model.describe()})}\n\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until it is stopped, its time is over, or its starter is gone."""
    parser = argparse.ArgumentParser(description="Serve digits and texts on 127.0.0.1.")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--sha256", required=True)
    parser.add_argument("--text-sha256", default="", help="serve text.onnx, which has this hash")
    parser.add_argument("--port", type=int, default=0, help="0: one that is free")
    parser.add_argument("--max-batch-size", type=int, default=BatchSettings.max_batch_size)
    parser.add_argument("--max-queue-length", type=int, default=BatchSettings.max_queue_length)
    parser.add_argument("--deadline-seconds", type=float, default=BatchSettings.deadline_seconds)
    parser.add_argument("--in-loop", action="store_true", help="no thread, for a small model")
    parser.add_argument("--lifetime-seconds", type=float, default=0, help="0: for ever")
    parser.add_argument(
        "--until-input-closes", action="store_true", help="stop with the process that started it"
    )
    options = parser.parse_args(arguments)
    folder: Path = options.models
    with np.load(folder / "trial.npz", allow_pickle=False) as trial:
        store = ModelStore(folder, trial["images"], labels=trial["labels"])
    store.activate(options.model, sha256=options.sha256)
    text = None
    if options.text_sha256:
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        text = TextModel(load_model(folder, "text", sha256=options.text_sha256), tokenizer)
    app = build_app(
        store,
        text=text,
        batching=BatchSettings(
            options.max_batch_size,
            options.max_queue_length,
            options.deadline_seconds,
            options.in_loop,
        ),
        token=os.environ.get("SERVICE_TOKEN", ""),
    )
    with _listen(options.port) as listening:
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, timeout_graceful_shutdown=5
        )
        server = uvicorn.Server(config)
        _bound_lifetime(server, options.lifetime_seconds, options.until_input_closes)
        sys.stdout.write(json.dumps({"port": listening.getsockname()[1]}) + "\n")
        sys.stdout.flush()
        server.run(sockets=[listening])


def _listen(port: int) -> socket.socket:
    """Opens the door before the port is told, so that an early request waits in front of it.

    asyncio sends small pieces at once only on sockets that state their protocol; on others
    each answer may wait for the acknowledgement of its first half, 40 milliseconds.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":  # elsewhere it would let two services share a port
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((HOST, port))
    listening.listen(1024)
    return listening


def _bound_lifetime(server: uvicorn.Server, seconds: float, until_input_closes: bool) -> None:
    def stop() -> None:
        server.should_exit = True
        # If it does not end in good order, it ends.
        _start_timer(10, os._exit, 1)

    def watch() -> None:
        # The pipe closes when the process that holds its other end is gone, however it went.
        while os.read(sys.stdin.fileno(), 4096):  # unbuffered: no lock is held at the end
            pass
        stop()

    if until_input_closes:
        threading.Thread(target=watch, daemon=True).start()
    if seconds:
        _start_timer(seconds, stop)


def _start_timer(seconds: float, act: Callable[..., Any], *given: Any) -> None:
    timer = threading.Timer(seconds, act, args=given)
    timer.daemon = True  # it keeps nothing alive
    timer.start()


if __name__ == "__main__":
    main()
