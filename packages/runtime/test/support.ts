import { closeSync, fstatSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

const PAGE_BYTES = 4_096;

/** Overwrites each page of a database but the first, as a failing disk may while the database is open. */
export function damagePages(path: string): void {
  const fd = openSync(path, 'r+');
  const { size } = fstatSync(fd);
  for (let at = PAGE_BYTES; at < size; at += PAGE_BYTES)
    writeSync(fd, Buffer.alloc(PAGE_BYTES, 0xa5), 0, PAGE_BYTES, at);
  closeSync(fd);
}

/** Makes directories that go away after the tests of the file. */
export function temporaryDirectories(): () => string {
  const made: string[] = [];
  afterAll(() => {
    for (const path of made) rmSync(path, { recursive: true, force: true });
  });
  return () => {
    const path = mkdtempSync(join(tmpdir(), 'waggle-runtime-'));
    made.push(path);
    return path;
  };
}
