export * from './sku.ts';
export * from './slot.ts';
