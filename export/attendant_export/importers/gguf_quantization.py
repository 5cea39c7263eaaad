"""The types of tensors in GGUF files, and their conversion to fp32.

A quantized tensor consists of blocks of adjacent values with their own scales. In the names of
types, the digit is the number of bits of a value; a "K" block holds 256 values.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
K_BLOCK = 256


@dataclass(frozen=True, slots=True)
class TensorType:
    """A type of tensors."""

    name: str
    block_size: int
    """Number of values in a block."""
    block_bytes: int
    """Number of bytes of a block."""
    convert: Callable[[Bytes], Floats]
    """From blocks (blocks, block_bytes) to values (blocks, block_size)."""

    def dequantize(self, content: bytes) -> Floats:
        """The values of whole blocks, in fp32. Scales that are no numbers give values of NaN."""
        blocks = np.frombuffer(content, np.uint8).reshape(-1, self.block_bytes)
        with np.errstate(invalid="ignore", over="ignore"):
            return self.convert(blocks).reshape(-1)


def _halves(blocks: Bytes, first: int) -> Floats:
    """The fp16 number at byte ``first`` of each block: (blocks, 1)."""
    return blocks[:, first : first + 2].copy().view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """The low halves of bytes (blocks, n), then the high halves: (blocks, 2 n)."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _f32(blocks: Bytes) -> Floats:
    return blocks.copy().view(np.float32)


def _f16(blocks: Bytes) -> Floats:
    return _halves(blocks, 0)


def _bf16(blocks: Bytes) -> Floats:
    # The upper half of an fp32 number.
    return (blocks.copy().view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _q8_0(blocks: Bytes) -> Floats:
    return _halves(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _q4_0(blocks: Bytes) -> Floats:
    return _halves(blocks, 0) * (_nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def _q4_1(blocks: Bytes) -> Floats:
    return _halves(blocks, 0) * _nibbles(blocks[:, 4:]).astype(np.float32) + _halves(blocks, 2)


def _q4_k(blocks: Bytes) -> Floats:
    """Eight groups of 32 values, each with a 6-bit scale and a 6-bit minimum."""
    packed = blocks[:, 4:16]
    low, high, mixed = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([low & 63, (mixed & 15) | ((low >> 6) << 4)], axis=1)
    minima = np.concatenate([high & 63, (mixed >> 4) | ((high >> 6) << 4)], axis=1)
    values = blocks[:, 16:].reshape(-1, 4, 32)  # two groups in the halves of 32 bytes
    groups = np.stack([values & 15, values >> 4], axis=2).reshape(-1, 8, 32)
    factors = (_halves(blocks, 0) * scales.astype(np.float32))[:, :, None]
    offsets = (_halves(blocks, 2) * minima.astype(np.float32))[:, :, None]
    return factors * groups.astype(np.float32) - offsets


def _q6_k(blocks: Bytes) -> Floats:
    """Sixteen groups of 16 values, each with an 8-bit scale."""
    low = blocks[:, :128].reshape(-1, 2, 2, 32)  # two halves of two times 32 bytes
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32)
    lows = np.concatenate([low & 15, low >> 4], axis=2)  # (blocks, 2, 4, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    values = (lows | (((high >> shifts) & 3) << 4)).astype(np.float32) - 32
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)
    factors = (_halves(blocks, 208) * scales)[:, :, None]
    found: Floats = factors * values.reshape(-1, 16, 16)
    return found


TYPES = {
    0: TensorType("F32", 1, 4, _f32),
    1: TensorType("F16", 1, 2, _f16),
    2: TensorType("Q4_0", 32, 18, _q4_0),
    3: TensorType("Q4_1", 32, 20, _q4_1),
    8: TensorType("Q8_0", 32, 34, _q8_0),
    12: TensorType("Q4_K", K_BLOCK, 144, _q4_k),
    14: TensorType("Q6_K", K_BLOCK, 210, _q6_k),
    30: TensorType("BF16", 1, 2, _bf16),
}
"""The supported types by their numbers in the file."""
