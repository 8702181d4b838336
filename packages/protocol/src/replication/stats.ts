import { CLASSES, type ClassName, type PerClass } from './types.ts';

/** Both directions of one thing counted since the start. */
interface Directions {
  in: number;
  out: number;
}

/** Counters since the start, for metrics. */
export interface ReplicationStats {
  readonly messages: Directions;
  readonly bytes: Directions;
  /** Registers in deltas, whether new or not. */
  readonly registers: PerClass<Directions>;
  /** Registers that were new here. */
  readonly changes: Record<ClassName, number>;
  /** Frames of other clusters; of versions that are not understood; of types that a newer minor brought. */
  foreignCluster: number;
  foreignVersion: number;
  unknownType: number;
  misbehaviours: number;
  /** Deltas of writers that are not (yet) admitted. */
  unknownWriters: number;
  /** Rumors that found no room and were left to the exchange. */
  rumorsDropped: number;
  exchangesOpened: number;
  /** Of them: those in which both sides had the same, and those given up. */
  exchangesEqual: number;
  exchangesLost: number;
  /** Catch-ups that started over. */
  restarts: number;
  /** Contents that there was no room to want. */
  wantsRefused: number;
  contentsFetched: number;
  /** Transfers given up or found wrong. */
  contentsFailed: number;
}

const directions = (): Directions => ({ in: 0, out: 0 });

export const newStats = (): ReplicationStats => ({
  messages: directions(),
  bytes: directions(),
  registers: perClass(directions),
  changes: perClass(() => 0),
  foreignCluster: 0,
  foreignVersion: 0,
  unknownType: 0,
  misbehaviours: 0,
  unknownWriters: 0,
  rumorsDropped: 0,
  exchangesOpened: 0,
  exchangesEqual: 0,
  exchangesLost: 0,
  restarts: 0,
  wantsRefused: 0,
  contentsFetched: 0,
  contentsFailed: 0,
});

/** One value for each class, from a function. */
export const perClass = <T>(make: (name: ClassName) => T): Record<ClassName, T> =>
  Object.fromEntries(CLASSES.map((name) => [name, make(name)])) as Record<ClassName, T>;
