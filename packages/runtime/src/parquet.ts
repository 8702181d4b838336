import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { ByteWriter, ParquetWriter, schemaFromColumnData, type ColumnSource } from 'hyparquet-writer';

/** A column: UTF-8 text, a whole number of 64 bits, or Unix ms (UTC). */
export interface ParquetColumn {
  readonly name: string;
  readonly type: 'STRING' | 'INT64' | 'TIMESTAMP';
  readonly nullable?: boolean;
}

type Cell = string | number | null;

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

const convert: Record<ParquetColumn['type'], (cell: Cell) => unknown> = {
  STRING: (cell) => cell,
  INT64: (cell) => (cell === null ? null : BigInt(cell)),
  TIMESTAMP: (cell) => (cell === null ? null : new Date(cell)),
};

const columnData = (columns: readonly ParquetColumn[], rows: readonly (readonly Cell[])[]): ColumnSource[] =>
  columns.map(({ name, type, nullable = false }, i) => ({
    name,
    type,
    nullable,
    offsetIndex: false,
    data: rows.map((row) => convert[type](row[i] ?? null)),
  }));

/** An Apache Parquet file (snappy, with statistics), written row group by row group. Mode 0600. */
export class ParquetFile {
  readonly #fd: number;
  readonly #columns: readonly ParquetColumn[];
  readonly #writer: ParquetWriter;

  /** What stood at the path is replaced. */
  constructor(path: string, columns: readonly ParquetColumn[]) {
    this.#columns = columns;
    this.#fd = openSync(path, 'w', 0o600);
    this.#writer = new ParquetWriter({
      writer: new FileWriter(this.#fd),
      schema: schemaFromColumnData({ columnData: columnData(columns, []) }),
      createdBy: 'waggle',
    });
  }

  /** Writes the rows, cells in the order of the columns, as one row group. */
  append(rows: readonly (readonly Cell[])[]): void {
    void this.#writer.write({ columnData: columnData(this.#columns, rows), rowGroupSize: Math.max(1, rows.length) });
  }

  /** Writes the footer. The content is durable on return; the name is its directory's to keep. */
  finish(): void {
    void this.#writer.finish();
    fsyncSync(this.#fd);
  }

  /** After `finish`, or to give the file up as it stands. */
  close(): void {
    closeSync(this.#fd);
  }
}
