/** Tensors of the contract as typed arrays. */

import { DataType, type Tensor } from "./generated/attendant/v1/embedding_pb.js";
import { badAnswer } from "./errors.js";

/** Numbers in the format that was asked for; float16 becomes float32, binary has 8 bits a byte. */
export type Numbers = Float32Array | Int8Array | Uint8Array;

/** Rows of a tensor, and the factor of each row, if the format has factors. */
export interface Rows {
  readonly rows: Numbers[];
  readonly scales: readonly number[];
}

/** The rows of a tensor (rows, width). Throws ServerError for data of another size. */
export function tensorRows(tensor: Tensor | undefined, requestId: string): Rows {
  if (!tensor) return { rows: [], scales: [] };
  const numbers = tensorNumbers(tensor);
  const [numRows = 0, width = 0] = tensor.shape;
  if (tensor.shape.length !== 2 || numbers.length !== numRows * width) {
    throw badAnswer(
      `${numbers.length} numbers for a shape of ${tensor.shape.join(", ")}`,
      requestId,
    );
  }
  const rows = Array.from({ length: numRows }, (_, i) =>
    numbers.subarray(i * width, (i + 1) * width),
  );
  return { rows, scales: tensor.scales };
}

function tensorNumbers({ data, dtype }: Tensor): Numbers {
  const copied = data.slice(); // aligned, and free of the rest of the answer
  switch (dtype) {
    case DataType.FLOAT32:
      return isLittleEndian ? new Float32Array(copied.buffer) : float32(copied);
    case DataType.FLOAT16:
      return float16(copied);
    case DataType.INT8:
      return new Int8Array(copied.buffer);
    default:
      return copied;
  }
}

const isLittleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

function float32(bytes: Uint8Array): Float32Array {
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

function float16(bytes: Uint8Array): Float32Array {
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 2 }, (_, i) =>
    half(view.getUint16(2 * i, true)),
  );
}

/** The number of 16 bits of IEEE 754. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
