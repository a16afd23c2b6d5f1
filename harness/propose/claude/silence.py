"""An answer's bytes, and how long the server may be silent."""

import time
from collections.abc import Callable, Iterator

import httpx2


class Listened(httpx2.SyncByteStream):
    """The bytes of a stream of server-sent events. ReadTimeout when nothing but pings came for too long.

    A socket's own timeout does not see that: pings arrive.
    """

    def __init__(self, stream: httpx2.SyncByteStream, patience_s: float) -> None:
        self._stream, self._patience_s = stream, patience_s

    def __iter__(self) -> Iterator[bytes]:
        heard = time.monotonic()
        for piece in self._stream:
            if not piece.startswith(b"event: ping"):
                heard = time.monotonic()
            elif time.monotonic() - heard > self._patience_s:
                raise httpx2.ReadTimeout(f"nothing but pings for {self._patience_s:g} s")
            yield piece

    def close(self) -> None:
        """Ends the answer."""
        self._stream.close()


def listen(patience_s: float) -> Callable[[httpx2.Response], None]:
    """A response hook of an HTTP client."""

    def hook(response: httpx2.Response) -> None:
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = Listened(response.stream, patience_s)

    return hook
