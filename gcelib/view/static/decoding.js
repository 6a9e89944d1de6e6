// What travelled as text: back in bytes and numbers.

/** The bytes of a base64 text.
 * @param {string} text */
export function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** Undo zlib.
 * @param {Uint8Array<ArrayBuffer>} packed
 * @returns {Promise<Uint8Array>} */
export async function inflate(packed) {
  const stream = new Blob([packed]).stream();
  const unpacked = stream.pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

/** A number or nested arrays, of which long ones came as bytes and a shape.
 * @param {any} value
 * @returns {any} */
export function unpacked(value) {
  if (value?.f64 === undefined) return value;
  const all = Array.from(new Float64Array(bytes(value.f64).buffer));
  if (value.shape.length < 2) return all;
  const [rows, columns] = value.shape;
  return Array.from({ length: rows }, (_, i) => {
    return all.slice(i * columns, (i + 1) * columns);
  });
}
