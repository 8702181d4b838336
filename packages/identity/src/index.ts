export { isOwnToken, urlKeySeed } from './credentials.ts';
export {
  ENTRY_NAME_PATTERN,
  PRESETS_MAX,
  PROFILE_BYTES_MAX,
  PRESET_BYTES_MAX,
  type Account,
  type Preset,
} from './documents.ts';
export type { Customer } from './customers.ts';
export type { AuditEntry, Write } from './facts.ts';
export type { Context } from './changes.ts';
export { Identity, PAGE_MAX, type IdentityDeps, type KeyView, type TokenView } from './identity.ts';
export type { FoldedRegister } from './views.ts';
export { LIMITS, LIMIT_DEFAULTS, type LimitEntry, type LimitName, type Limits } from './limits.ts';
export {
  actorOf,
  authorize,
  authorizeCustomer,
  SCOPES,
  TOKEN_ROLES,
  type Actor,
  type Principal,
  type Scope,
  type TokenRole,
} from './principals.ts';
