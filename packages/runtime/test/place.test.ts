import { cpSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { differences, placeOf, readPlace, writePlace, type Place } from '../src/place.ts';
import { temporaryDirectories } from './support.ts';

const temporary = temporaryDirectories();
const place: Place = { machine: 'a', boot: 'b', device: '1', inode: '2' };

describe('the place of a data directory', () => {
  it('is remembered, for the owner only, without the machine id itself', () => {
    const directory = temporary();
    expect(readPlace(directory)).toBeNull();
    const found = placeOf(directory);
    writePlace(directory, found);
    expect(readPlace(directory)).toEqual(found);
    const file = join(directory, 'place.json');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    let machineId = '\0';
    try {
      machineId = readFileSync('/etc/machine-id', 'utf8').trim();
    } catch {
      // There may be none.
    }
    expect(readFileSync(file, 'utf8')).not.toContain(machineId);
  });

  it('stays when the directory is renamed, and is another for a copy', () => {
    const parent = temporary();
    const [a, b, c] = ['a', 'b', 'c'].map((name) => join(parent, name));
    cpSync(temporary(), a!, { recursive: true });
    const before = placeOf(a!);
    cpSync(a!, b!, { recursive: true });
    expect(differences(before, placeOf(b!))).toEqual([expect.stringContaining(`inode ${before.inode}`)]);
    renameSync(a!, c!);
    expect(differences(before, placeOf(c!))).toEqual([]);
  });

  it.each<[string, Partial<Place>, number]>([
    ['nothing', {}, 0],
    ['the machine', { machine: 'c' }, 1],
    ['the machine, which is not known here', { machine: null }, 0],
    ['the inode', { inode: '3' }, 1],
    ['the file system', { device: '3' }, 1],
    ['the kernel, started again', { boot: 'c' }, 0],
    ['the number of the file system since the kernel was started again', { boot: 'c', device: '3' }, 0],
    ['everything', { machine: 'c', boot: 'd', device: '4', inode: '5' }, 2],
  ])('tells whether it differs in %s', (_, other, count) => {
    expect(differences(place, { ...place, ...other })).toHaveLength(count);
    expect(differences({ ...place, ...other }, place)).toHaveLength(count);
  });

  it.each([
    ['DATA_DAMAGED', ''],
    ['DATA_DAMAGED', 'null'],
    ['DATA_DAMAGED', '{"format":1,"machine":null,"boot":null,"device":"1"}'],
    ['DATA_DAMAGED', '{"format":1,"machine":7,"boot":null,"device":"1","inode":"2"}'],
    ['DATA_DAMAGED', '{"format":"1"}'],
    ['DATA_NEWER', '{"format":2}'],
  ])('throws %s for a file that holds %j', (code, text) => {
    const directory = temporary();
    writeFileSync(join(directory, 'place.json'), text);
    expect(() => readPlace(directory)).toThrow(expect.objectContaining({ code }));
  });
});
