"""The mask over what clients send (RFC 6455 section 5.3), by the fastest means there is.

``websockets`` brings a C function for it (``pip install 'cycloneish[websocket]'``): it makes no difference
for chat messages and much for those of many kilobytes. Without it Python's long integers do the work.
"""

from __future__ import annotations

from collections.abc import Callable

from cycloneish.util import _websocket_mask_python

__all__ = ["HAS_SPEEDUPS", "Buffer", "apply_mask", "apply_mask_python"]

Buffer = bytes | bytearray | memoryview


def apply_mask_python(data: Buffer, mask: bytes | bytearray) -> bytes:
    """XOR *data* with *mask*, over and over; its own inverse.

    :param mask: 4 bytes.
    :raises ValueError: *mask* has another length.
    """
    return _websocket_mask_python(mask, data)  # type: ignore[arg-type]  # any buffer will do


apply_mask: Callable[[Buffer, bytes | bytearray], bytes] = apply_mask_python
HAS_SPEEDUPS = False
try:
    from websockets.speedups import apply_mask as _apply_mask_c
except ImportError:
    pass
else:
    apply_mask = _apply_mask_c
    HAS_SPEEDUPS = True
