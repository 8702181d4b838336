import { base64, concat, hex, parseReplicaId, WaggleError, type ReplicaId } from '../base/index.ts';

/** A node's Ed25519 transport key, which is its address in the swarm: base64 of 32 bytes, as in a roster. */
export type MemberKey = string & { readonly __memberKey: unique symbol };
/**
 * The 48 bytes of key and replica id, one per character (U+0000 to U+00FF): what a member is looked up by and named with on
 * the wire. Equal exactly when the members are. Not for people.
 */
export type MemberId = string & { readonly __memberId: unique symbol };

/** Who a member is: key and replica id together, never a name or an address. Made by `memberOf`. */
export interface Member {
  readonly key: MemberKey;
  readonly replica: ReplicaId;
  readonly id: MemberId;
}

const KEY_BYTES = 32;
export const MEMBER_ID_BYTES = 48;

/** One character per byte. */
export const toMemberId = (bytes: Uint8Array): MemberId =>
  String.fromCharCode.apply(null, bytes as unknown as number[]) as MemberId;

/** The bytes of `toMemberId`. */
export function memberIdBytes(id: MemberId): Uint8Array {
  const bytes = new Uint8Array(id.length);
  for (let i = 0; i < id.length; i++) bytes[i] = id.charCodeAt(i);
  return bytes;
}

/** The member of a transport key (base64 of 32 bytes) and a replica id. Throws `DECODE_FAILED`. */
export function memberOf(key: string, replica: string): Member {
  const keyBytes = base64.decode(key);
  if (keyBytes.length !== KEY_BYTES)
    throw new WaggleError('DECODE_FAILED', `Expected ${KEY_BYTES} bytes for a member key, received ${keyBytes.length}`);
  const replicaId = parseReplicaId(replica);
  return { key: key as MemberKey, replica: replicaId, id: toMemberId(concat(keyBytes, hex.decode(replicaId))) };
}

/**
 * The states of a member, by rising precedence within one incarnation; the index is the code on the wire. `suspect` still
 * counts as reachable. `left` is the member's own word, so it stands above a verdict of others.
 */
export const MEMBER_STATES = ['alive', 'suspect', 'dead', 'left'] as const;
export type MemberState = (typeof MEMBER_STATES)[number];

/** What is said of a member (SWIM §4.1). A suspicion names who accuses, so that confirmations are told apart. */
export type Update =
  | { readonly state: 'alive' | 'dead' | 'left'; readonly member: MemberId; readonly incarnation: number }
  | { readonly state: 'suspect'; readonly member: MemberId; readonly incarnation: number; readonly accuser: MemberId };

/**
 * Whether news overrides what is held: a greater incarnation always, an equal one by a state of greater precedence
 * (SWIM §4.2). A total order, so that the order in which news arrives does not matter.
 */
export const overrides = (
  news: { readonly state: MemberState; readonly incarnation: number },
  held: { readonly state: MemberState; readonly incarnation: number },
): boolean =>
  news.incarnation > held.incarnation ||
  (news.incarnation === held.incarnation && MEMBER_STATES.indexOf(news.state) > MEMBER_STATES.indexOf(held.state));

/** Whether a member in this state is probed and counted among those reachable. */
export const isLive = (state: MemberState | 'unheard'): boolean => state === 'alive' || state === 'suspect';
