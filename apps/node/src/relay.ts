import type { MemberKey } from '@waggle/protocol/membership';
import type { Welcome } from '@waggle/runtime';
import type { JoinHandlers, JoinLink, TransportHandlers } from '@waggle/runtime/transport';

/** What the transport is opened with before there is a driver: it passes on what comes once there is one. */
export class Relay implements Required<TransportHandlers> {
  #driver: Omit<TransportHandlers, 'joiner'> | undefined;
  #welcome: Pick<Welcome, 'joiner'> | undefined;

  connect(driver: Omit<TransportHandlers, 'joiner'>, welcome: Pick<Welcome, 'joiner'>): void {
    this.#driver = driver;
    this.#welcome = welcome;
  }

  connected(key: MemberKey): void {
    this.#driver?.connected(key);
  }

  disconnected(key: MemberKey): void {
    this.#driver?.disconnected(key);
  }

  message(key: MemberKey, bytes: Uint8Array): void {
    this.#driver?.message(key, bytes);
  }

  datagram(key: MemberKey, bytes: Uint8Array): void {
    this.#driver?.datagram(key, bytes);
  }

  farewell(key: MemberKey): Uint8Array | null {
    return this.#driver?.farewell?.(key) ?? null;
  }

  joiner(link: JoinLink): JoinHandlers {
    if (this.#welcome !== undefined) return this.#welcome.joiner(link);
    link.close();
    return { message: () => undefined, closed: () => undefined };
  }
}
