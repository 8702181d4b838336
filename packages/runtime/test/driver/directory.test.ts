import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ReplicaId } from '@waggle/protocol/base';
import { NodeDirectory, encodeNodeEntry, parseNodeEntry, type NodeEntry } from '../../src/driver/directory.ts';

const entry: NodeEntry = {
  addresses: [{ host: '10.0.0.4', port: 7070 }],
  url: 'http://10.0.0.4:8080',
  zone: 'rack-3',
  version: '0.1.0',
  protocols: [1],
  formats: [1],
  load: { workers: 4, running: 1, queued: 0 },
  informed: true,
  writtenMs: 1_700_000_000_000,
};
const a = 'a'.repeat(32) as ReplicaId;
const register = (value: string, key = 'node/self') => ({ key, value });

describe('an entry of the node directory', () => {
  it('is read as it was written, and fields of a later version are passed over', () => {
    expect(parseNodeEntry(encodeNodeEntry(entry))).toEqual(entry);
    expect(parseNodeEntry(JSON.stringify({ ...entry, region: 'north', load: { ...entry.load, gpus: 2 } }))).toEqual(
      entry,
    );
  });

  it.each([
    ['an address by name', { addresses: [{ host: 'node.example', port: 7070 }] }],
    ['an address of nobody', { addresses: [{ host: '0.0.0.0', port: 7070 }] }],
    ['no port', { addresses: [{ host: '10.0.0.4', port: 0 }] }],
    ['another URL', { url: 'nowhere' }],
    ['a long text', { version: 'x'.repeat(600) }],
    ['a zone that is no text', { zone: 3 }],
    ['many numbers', { protocols: Array.from({ length: 99 }, () => 1) }],
    ['a load below 0', { load: { workers: 1, running: -1, queued: 0 } }],
    ['no load', { load: null }],
    ['no word of what it knows', { informed: undefined }],
    ['no time', { writtenMs: 1.5 }],
  ])('is none with %s', (_, change) => {
    expect(parseNodeEntry(JSON.stringify({ ...entry, ...change }))).toBeUndefined();
  });

  it('has a bounded number of addresses', () => {
    const addresses = Array.from({ length: 50 }, (_, i) => ({ host: `10.0.0.${i + 1}`, port: 7070 }));
    expect(parseNodeEntry(encodeNodeEntry({ ...entry, addresses }))?.addresses).toEqual(addresses.slice(0, 4));
  });

  it('is none of any other text', () => {
    fc.assert(fc.property(fc.oneof(fc.string(), fc.json()), (text) => parseNodeEntry(text) === undefined));
  });
});

describe('the node directory', () => {
  it('has the latest entry of each replica, and says when its addresses have changed', () => {
    const directory = new NodeDirectory();
    expect(directory.fold(a, register(encodeNodeEntry(entry)))).toBe(true);
    const busier = { ...entry, load: { ...entry.load, running: 4 } };
    expect(directory.fold(a, register(encodeNodeEntry(busier)))).toBe(false);
    expect(directory.entries.get(a)).toEqual(busier);
    const moved = { ...entry, addresses: [{ host: '10.0.0.9', port: 7070 }] };
    expect(directory.fold(a, register(encodeNodeEntry(moved)))).toBe(true);
  });

  it('keeps what it had when a register is malformed, and passes others over', () => {
    const directory = new NodeDirectory();
    directory.fold(a, register(encodeNodeEntry(entry)));
    expect(directory.fold(a, register('{}'))).toBe(false);
    expect(directory.fold(a, register('{}', 'node/other'))).toBe(false);
    expect(directory.malformed).toBe(1);
    expect([...directory.entries]).toEqual([[a, entry]]);
  });
});
