// Read and write the voxels of NIfTI-1 files, in the order of the file.

export type Voxels = Int8Array | Uint8Array | Int16Array | Uint16Array | Int32Array | Uint32Array | Float32Array
  | Float64Array;

export interface Nifti {
  shape: [number, number, number];
  voxels: Voxels;
  /** The value of a voxel is `slope * stored + intercept`. */
  slope: number;
  intercept: number;
}

const TYPES: Record<number, new (buffer: ArrayBuffer, offset: number, length: number) => Voxels> = {
  2: Uint8Array,
  4: Int16Array,
  8: Int32Array,
  16: Float32Array,
  64: Float64Array,
  256: Int8Array,
  512: Uint16Array,
  768: Uint32Array,
};

/** Throws an Error with a sentence if the page cannot show the file. */
export function readNifti(file: ArrayBuffer): Nifti {
  if (file.byteLength < 348) throw new Error("The file of the scan is cut short.");
  const header = new DataView(file, 0, 348);
  if (header.getInt32(0, true) !== 348) throw new Error("The file of the scan is no NIfTI-1 file of this byte order.");
  const shape: [number, number, number] = [1, 2, 3].map((n) => Math.max(1, header.getInt16(40 + 2 * n, true))) as never;
  const type = header.getInt16(70, true);
  const Kind = TYPES[type];
  if (!Kind) throw new Error(`The file of the scan has voxels of type ${type}, which this page cannot show.`);
  const offset = Math.max(348, Math.round(header.getFloat32(108, true)));
  const count = shape[0] * shape[1] * shape[2];
  const bytes = count * Kind.prototype.BYTES_PER_ELEMENT;
  if (file.byteLength < offset + bytes) throw new Error("The file of the scan is cut short.");
  const aligned = offset % Kind.prototype.BYTES_PER_ELEMENT === 0;
  const voxels = aligned ? new Kind(file, offset, count) : new Kind(file.slice(offset, offset + bytes), 0, count);
  const slope = header.getFloat32(112, true);
  const scaled = Number.isFinite(slope) && slope !== 0;
  return { shape, voxels, slope: scaled ? slope : 1, intercept: scaled ? header.getFloat32(116, true) : 0 };
}

/** Return all bytes of a stream, decompressed if gzipped. */
export async function gunzipped(stream: ReadableStream<Uint8Array>): Promise<ArrayBuffer> {
  const reader = stream.getReader();
  const { value: first } = await reader.read();
  if (!first) return new ArrayBuffer(0);
  const whole = new ReadableStream<Uint8Array>({
    start: (out) => out.enqueue(first),
    async pull(out) {
      const { done, value } = await reader.read();
      if (done) out.close();
      else out.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
  const isZipped = first[0] === 0x1f && first[1] === 0x8b;
  const plain = isZipped ? whole.pipeThrough(new DecompressionStream("gzip") as never) : whole;
  return new Response(plain).arrayBuffer();
}

export async function gzipped(bytes: Uint8Array): Promise<Blob> {
  const stream = new Blob([bytes as BlobPart]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Response(stream).blob();
}

/** Write a label map as a NIfTI-1 file (uint8): `affine` is 4 x 4, voxel indices to RAS mm. */
export function writeNifti(map: Uint8Array, shape: readonly number[], affine: number[][]): Uint8Array {
  const file = new Uint8Array(352 + map.length);
  const header = new DataView(file.buffer);
  header.setInt32(0, 348, true);
  [3, ...shape, 1, 1, 1, 1].forEach((size, n) => header.setInt16(40 + 2 * n, size, true));
  header.setInt16(70, 2, true);
  header.setInt16(72, 8, true);
  const spacing = [0, 1, 2].map((axis) => Math.hypot(...[0, 1, 2].map((row) => affine[row]![axis]!)));
  [1, ...spacing, 1, 1, 1, 1].forEach((size, n) => header.setFloat32(76 + 4 * n, size, true));
  header.setFloat32(108, 352, true);
  header.setFloat32(112, 1, true);
  header.setUint8(123, 2); // mm
  header.setInt16(254, 1, true); // the sform says where the grid lies; qform_code stays 0
  for (let row = 0; row < 3; row++)
    for (let column = 0; column < 4; column++)
      header.setFloat32(280 + 16 * row + 4 * column, affine[row]![column]!, true);
  file.set([0x6e, 0x2b, 0x31, 0], 344); // "n+1"
  file.set(map, 352);
  return file;
}
