import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { ByteWriter, ParquetWriter, schemaFromColumnData, type ColumnSource } from 'hyparquet-writer';

/** A column: UTF-8 text, a whole number of 64 bits, a number of 64 bits (IEEE 754), or Unix ms (UTC). */
export interface ParquetColumn {
  readonly name: string;
  readonly type: 'STRING' | 'INT64' | 'DOUBLE' | 'TIMESTAMP';
  readonly nullable?: boolean;
}

/** A value of a row; null only where the column is nullable. */
export type ParquetCell = string | number | null;

/** Hands each row group to the file, so that memory holds one at a time. */
class FileWriter extends ByteWriter {
  readonly #fd: number;
  constructor(fd: number) {
    super(1 << 20);
    this.#fd = fd;
  }

  flush(): void {
    const bytes = this.getBytes();
    for (let written = 0; written < bytes.length;) written += writeSync(this.#fd, bytes, written);
    this.index = 0;
  }

  override finish(): void {
    this.flush();
  }
}

const convert: Record<ParquetColumn['type'], (cell: ParquetCell) => unknown> = {
  STRING: (cell) => cell,
  INT64: (cell) => (cell === null ? null : BigInt(cell)),
  DOUBLE: (cell) => cell,
  TIMESTAMP: (cell) => (cell === null ? null : new Date(cell)),
};

const columnData = (columns: readonly ParquetColumn[], rows: readonly (readonly ParquetCell[])[]): ColumnSource[] =>
  columns.map(({ name, type, nullable = false }, i) => ({
    name,
    type,
    nullable,
    offsetIndex: false,
    data: rows.map((row) => convert[type](row[i] ?? null)),
  }));

/** A writer of the format (snappy, with statistics), and how it writes rows, cells in the order of the columns, as one group. */
function openWriter(writer: ByteWriter, columns: readonly ParquetColumn[]) {
  const parquet = new ParquetWriter({
    writer,
    schema: schemaFromColumnData({ columnData: columnData(columns, []) }),
    createdBy: 'waggle',
  });
  return {
    append: (rows: readonly (readonly ParquetCell[])[]): void =>
      void parquet.write({ columnData: columnData(columns, rows), rowGroupSize: Math.max(1, rows.length) }),
    finish: (): void => void parquet.finish(),
  };
}

/** Keeps what was written until it is taken. */
class ChunkWriter extends ByteWriter {
  take(): Uint8Array {
    const bytes = this.getBytes().slice();
    this.index = 0;
    return bytes;
  }
}

/**
 * The bytes of an Apache Parquet file, as they come: a chunk for each row group, then the footer. Memory holds one group at a
 * time, and some hundred bytes about each of those before. Rows are cells in the order of the columns.
 */
export async function* parquetChunks(
  columns: readonly ParquetColumn[],
  groups: AsyncIterable<readonly (readonly ParquetCell[])[]>,
): AsyncGenerator<Uint8Array> {
  const chunks = new ChunkWriter(1 << 16);
  const writer = openWriter(chunks, columns);
  for await (const rows of groups) {
    writer.append(rows);
    yield chunks.take();
  }
  writer.finish();
  yield chunks.take();
}

/** An Apache Parquet file (snappy, with statistics), written row group by row group. Mode 0600. */
export class ParquetFile {
  readonly #fd: number;
  readonly #writer: ReturnType<typeof openWriter>;

  /** What stood at the path is replaced. */
  constructor(path: string, columns: readonly ParquetColumn[]) {
    this.#fd = openSync(path, 'w', 0o600);
    this.#writer = openWriter(new FileWriter(this.#fd), columns);
  }

  /** Writes the rows, cells in the order of the columns, as one row group. */
  append(rows: readonly (readonly ParquetCell[])[]): void {
    this.#writer.append(rows);
  }

  /** Writes the footer. The content is durable on return; the name is its directory's to keep. */
  finish(): void {
    this.#writer.finish();
    fsyncSync(this.#fd);
  }

  /** After `finish`, or to give the file up as it stands. */
  close(): void {
    closeSync(this.#fd);
  }
}
