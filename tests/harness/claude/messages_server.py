"""A server that speaks the Messages API from a script, on a real socket: what the real SDK is tested against."""

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

Reply = Callable[[Request], Response]
USAGE = {"input_tokens": 100, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 1000, "output_tokens": 50}

EMPTY: dict[str, dict[str, Any]] = {"tool_use": {"input": {}}, "text": {"text": ""}, "thinking": {"signature": ""}}


def thinking(signature: str) -> dict[str, Any]:
    """Thinking in an answer, which its server keeps to itself."""
    return {"type": "thinking", "thinking": "", "signature": signature}


def tool(name: str, arguments: dict[str, Any], call: str = "toolu_1") -> dict[str, Any]:
    """A tool call in an answer."""
    return {"type": "tool_use", "id": call, "name": name, "input": arguments}


def text(words: str) -> dict[str, Any]:
    """Words in an answer."""
    return {"type": "text", "text": words}


def message(*blocks: dict[str, Any], stop: str = "tool_use", usage: dict[str, int] = USAGE) -> dict[str, Any]:
    """An answer, whole."""
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-5-5"}
    return {**head, "content": list(blocks), "stop_reason": stop, "stop_sequence": None, "usage": usage}


def events(answer: dict[str, Any]) -> Iterator[bytes]:
    """An answer as server-sent events, its tool arguments in pieces."""
    started = {**answer, "content": [], "stop_reason": None, "usage": {**answer["usage"], "output_tokens": 1}}
    yield event("message_start", message=started)
    for index, block in enumerate(answer["content"]):
        yield event("content_block_start", index=index, content_block={**block, **EMPTY[block["type"]]})
        yield event("ping")
        for delta in deltas(block):
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    ended = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
    yield event("message_delta", delta=ended, usage={"output_tokens": answer["usage"]["output_tokens"]})
    yield event("message_stop")


def deltas(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pieces of a block."""
    if block["type"] == "text":
        yield {"type": "text_delta", "text": block["text"]}
        return
    if block["type"] == "thinking":
        yield {"type": "signature_delta", "signature": block["signature"]}
        return
    written = json.dumps(block["input"])
    for start in range(0, len(written), 40):
        yield {"type": "input_json_delta", "partial_json": written[start : start + 40]}


def event(kind: str, **fields: Any) -> bytes:
    """One server-sent event."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def streamed(*blocks: dict[str, Any], **options: Any) -> Reply:
    """Answers with these blocks, streamed."""
    pieces = list(events(message(*blocks, **options)))
    return lambda _: Response(iter(pieces), content_type="text/event-stream")


def cut_after(pieces: int, *blocks: dict[str, Any]) -> Reply:
    """Begins an answer, and loses the connection in the middle of it: less comes than was announced."""
    begun = b"".join(list(events(message(*blocks)))[:pieces])
    return lambda _: Response(begun, content_type="text/event-stream", headers={"Content-Length": "1000000"})


def failed(status: int, kind: str = "error", **headers: str) -> Reply:
    """A refusal of the server, in its own form."""
    body = json.dumps({"type": "error", "error": {"type": kind, "message": f"a {kind}"}})
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Response(body, status=status, content_type="application/json", headers=given)


def raw(body: bytes, content_type: str = "text/event-stream") -> Reply:
    """Whatever bytes."""
    return lambda _: Response(body, content_type=content_type)


class MessagesServer:
    """Gives the replies that it was told to, in order, then `otherwise`, and keeps what it was asked."""

    def __init__(self, server: HTTPServer) -> None:
        self.url = server.url_for("").rstrip("/")
        self.asked: list[dict[str, Any]] = []
        self.counted: list[dict[str, Any]] = []
        self.count: Reply = raw(b'{"input_tokens": 1000}', "application/json")
        self.over = threading.Event()  # ends what waits
        self.otherwise: Reply = failed(400, "script_is_over")
        self._replies: list[Reply] = []
        server.expect_request("/v1/messages", method="POST").respond_with_handler(self._answer)
        server.expect_request("/v1/messages/count_tokens", method="POST").respond_with_handler(self._count)

        self.batches: list[list[dict[str, Any]]] = []  # the calls of each
        self.status = "ended"  # of all batches
        self.results: list[dict[str, Any] | None] = []  # of all calls in order; None for one that is never told of
        self.cancelled = 0
        self.gone, self.faults = False, 0  # whether all batches are; how often a look at one fails
        batch, results, cancel = (
            re.compile(rf"/v1/messages/batches/batch_\d+{end}$") for end in ("", "/results", "/cancel")
        )
        server.expect_request("/v1/messages/batches", method="POST").respond_with_handler(self._send)
        server.expect_request(batch, method="GET").respond_with_handler(self._look)
        server.expect_request(results, method="GET").respond_with_handler(self._tell)
        server.expect_request(cancel, method="POST").respond_with_handler(self._cancel)

    def will(self, *replies: Reply) -> None:
        """Adds replies to the script."""
        self._replies += replies

    def stall(self, *pieces: bytes, every_s: float = 60.0) -> Reply:
        """Says these, and then nothing for a minute; or the last of them again and again."""
        return self.slowly([*pieces, *(pieces[-1:] or [b""]) * int(60 / every_s)], every_s, len(pieces))

    def slowly(self, pieces: Sequence[bytes], every_s: float, at_once: int = 0) -> Reply:
        """Says a piece now and then, the first ones at once."""

        def say() -> Iterator[bytes]:
            yield from pieces[:at_once]
            for piece in pieces[at_once:]:
                if self.over.wait(every_s):
                    return
                yield piece

        return lambda _: Response(say(), content_type="text/event-stream")

    def _answer(self, request: Request) -> Response:
        self.asked.append(request.get_json())
        return (self._replies.pop(0) if self._replies else self.otherwise)(request)

    def _batch(self) -> Response:
        number = len(self.batches)
        counts = dict.fromkeys(("canceled", "errored", "expired", "processing", "succeeded"), 0)
        record = {"id": f"batch_{number}", "type": "message_batch", "processing_status": self.status}
        record |= {"created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z"}
        record |= {"results_url": f"{self.url}/v1/messages/batches/batch_{number}/results", "request_counts": counts}
        return Response(json.dumps(record), content_type="application/json")

    def _send(self, request: Request) -> Response:
        if self._replies:
            return self._replies.pop(0)(request)
        self.batches.append(request.get_json()["requests"])
        return self._batch()

    def _look(self, request: Request) -> Response:
        if self.gone:
            return failed(404)(request)
        if self.faults > 0:
            self.faults -= 1
            return failed(500)(request)
        return self._batch()

    def _tell(self, request: Request) -> Response:
        calls = self.batches[int(re.search(r"batch_(\d+)", request.path).group(1)) - 1]
        told = [(call["custom_id"], self.results.pop(0)) for call in calls]
        lines = [json.dumps({"custom_id": name, "result": result}) for name, result in reversed(told) if result]
        return Response("\n".join(lines) + "\n", content_type="application/binary")

    def _cancel(self, request: Request) -> Response:
        self.cancelled += 1
        return self._batch()

    def _count(self, request: Request) -> Response:
        self.counted.append(request.get_json())
        return self.count(request)
