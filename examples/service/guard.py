"""The door: what every request must keep to, and how every answer is marked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .batching import RefusedError
from .metrics import Metrics
from .models import Model, ModelError, ModelStore

HASH_HEADER = "X-Model-SHA256"
DRAINED = 16  # times the largest body are read and thrown away before the door is shut
GONE = 499  # whoever asked, before the request was whole: counted so, and never sent
MAX_ERRORS = 5  # of a request that are told; a long list would only help an attacker


@dataclass(frozen=True)
class Limits:
    """What a stranger may cost.

    Attributes:
        max_body_bytes: of one request.
        read_seconds: for its body to arrive.
        max_streams: texts written at the same time.
    """

    max_body_bytes: int = 65_536
    read_seconds: float = 5.0
    max_streams: int = 2


class Guard:
    """Reads each body within its limits, names the model in each answer, and counts."""

    def __init__(
        self, app: ASGIApp, *, store: ModelStore, metrics: Metrics, limits: Limits
    ) -> None:
        self.app, self.store, self.metrics, self.limits = app, store, metrics, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request, as ASGI calls it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), HTTPStatus.INTERNAL_SERVER_ERROR.value

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _name_model(message, self.store.current)
            await send(message)

        try:
            body = await asyncio.wait_for(
                _read(scope, receive, self.limits.max_body_bytes), self.limits.read_seconds
            )
        except _BodyTooLargeError:
            await _hang_up(413, "the body is too large")(scope, receive, send_named)
        except TimeoutError:
            await _hang_up(408, "the body did not arrive")(scope, receive, send_named)
        else:
            if body is None:
                status = GONE
            else:
                await self.app(scope, _replay(body, receive), send_named)
        finally:
            route = scope.get("route")
            self.metrics.requests[getattr(route, "path", "other"), status] += 1
            self.metrics.request_seconds.add(time.perf_counter() - started)


class _BodyTooLargeError(Exception):
    pass


async def _read(scope: Scope, receive: Receive, max_bytes: int) -> bytes | None:
    """Reads a body within its bounds.

    One that is too large is read on for a while: its sender would still be writing when the
    door is shut, and not hear why.
    """
    stated = dict(scope["headers"]).get(b"content-length", b"0")
    if not stated.isdigit() or int(stated[:20]) > DRAINED * max_bytes:
        raise _BodyTooLargeError
    body, num_bytes, is_whole = bytearray(), 0, False
    while not is_whole:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        num_bytes += len(part)
        if num_bytes <= max_bytes:
            body += part
        elif num_bytes > DRAINED * max_bytes:
            break
        is_whole = not message.get("more_body", False)
    if max(num_bytes, int(stated)) > max_bytes:
        raise _BodyTooLargeError
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, and then whatever else comes."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


def _name_model(message: MutableMapping[str, Any], model: Model) -> None:
    headers = message.setdefault("headers", [])
    name = HASH_HEADER.lower().encode()
    if name not in (key.lower() for key, _ in headers):
        headers.append((name, model.sha256.encode()))


def _explain(
    status: int,
    reason: str,
    *,
    fields: Sequence[dict[str, str]] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    content = {"error": reason, "fields": list(fields)}
    return JSONResponse(content, status_code=status, headers=headers)


def _hang_up(status: int, reason: str) -> JSONResponse:
    """For a body that was not read to its end: what follows it is no request."""
    return _explain(status, reason, headers={"Connection": "close"})


def list_handlers() -> dict[Any, Any]:
    """What is answered to which error; the values that were sent are never sent back."""

    async def refuse(_: Request, error: RefusedError) -> Response:
        headers = {"Retry-After": str(error.retry_after_seconds)}
        return _explain(error.status, str(error), headers=headers)

    async def reject(_: Request, error: RequestValidationError) -> Response:
        fields = [
            {"field": ".".join(map(str, each["loc"]))[:200], "problem": each["msg"][:200]}
            for each in error.errors()[:MAX_ERRORS]
        ]
        return _explain(422, "the request does not fit the schema", fields=fields)

    async def reject_model(_: Request, error: ModelError) -> Response:
        return _explain(409, str(error))

    async def pass_on(_: Request, error: HTTPException) -> Response:
        return _explain(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    async def admit(_: Request, __: Exception) -> Response:
        return _explain(500, "the service failed; the request may be sent again")

    return {
        RefusedError: refuse,
        RequestValidationError: reject,
        ModelError: reject_model,
        HTTPException: pass_on,
        Exception: admit,
    }
