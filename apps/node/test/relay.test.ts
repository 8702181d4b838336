import { describe, expect, it } from 'vitest';
import { utf8 } from '@waggle/protocol/base';
import type { MemberKey } from '@waggle/protocol/membership';
import { Relay } from '../src/relay.ts';

const KEY = 'AAAA' as MemberKey;

describe('the relay', () => {
  it('takes whatever comes before there is a driver, and then passes all of it on', () => {
    const relay = new Relay();
    const ended: string[] = [];
    const link = { key: KEY, send: () => true, allow: () => undefined, close: () => ended.push('link') };
    const said: unknown[] = [];
    const speak = (): void => {
      relay.connected(KEY);
      relay.message(KEY, utf8('m'));
      relay.datagram(KEY, utf8('d'));
      relay.disconnected(KEY);
      said.push(relay.farewell(KEY));
      relay.joiner(link).message(utf8('j'));
    };
    speak();
    expect([said, ended]).toEqual([[null], ['link']]);
    const note =
      (what: string) =>
      (...received: unknown[]): void =>
        void said.push([what, ...received]);
    relay.connect(
      {
        connected: note('connected'),
        disconnected: note('disconnected'),
        message: note('message'),
        datagram: note('datagram'),
        farewell: () => utf8('for good'),
      },
      { joiner: () => ({ message: note('joiner'), closed: () => undefined }) },
    );
    said.length = 0;
    speak();
    expect(said).toEqual([
      ['connected', KEY],
      ['message', KEY, utf8('m')],
      ['datagram', KEY, utf8('d')],
      ['disconnected', KEY],
      utf8('for good'),
      ['joiner', utf8('j')],
    ]);
    expect(ended).toEqual(['link']);
  });
});
