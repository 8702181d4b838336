const TRAILER = 0x3b;
const EXTENSION = 0x21;
const IMAGE = 0x2c;

/** Bytes of a colour table, by the packed field that announces it (GIF89a, sections 18 and 20). */
const tableBytes = (packed: number): number => ((packed & 0x80) === 0 ? 0 : 3 * 2 ** ((packed & 7) + 1));

/**
 * Whether a GIF goes on to its trailer (GIF89a, section 27). libvips shows the frames that a truncated one has, without a
 * word; what follows the trailer is nobody's business. Walks from block to block, no pixel is decoded.
 */
export function isWholeGif(body: Buffer): boolean {
  let at = 13 + tableBytes(body[10] ?? 0);
  for (;;) {
    const block = body[at];
    if (block === TRAILER) return true;
    if (block === EXTENSION) at += 2;
    else if (block === IMAGE) at += 10 + tableBytes(body[at + 9] ?? 0) + 1;
    else return false;
    for (let size = body[at++]; size !== 0; size = body[at++]) {
      if (size === undefined) return false;
      at += size;
    }
  }
}
