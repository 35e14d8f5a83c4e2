import type { LogRegion, RegionDescription } from '../../protocol/vhost-user/payloads.js';
import type { FeatureBits } from '../../protocol/virtio/features.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import type { Device } from '../virtqueue/device.js';
import type { StateTransfer } from './state-transfer.js';
import type { Vring } from './vring.js';

/** What requests tell the owner of their session. None of these may throw. */
export interface RequestObserver {
  /** Why the region cannot be served, or null. */
  inspectRegion(description: RegionDescription): string | null;
  /** `gpa`: of the region that was added or removed; null: the whole table was replaced. */
  memoryChanged(gpa: bigint | null): void;
  /** `gpa`: of the region that cannot be had; null: the whole table cannot, or that is not known. */
  memoryRefused(error: Error, gpa: bigint | null): void;
  featuresAcked(features: FeatureBits): void;
}

/** What requests need of their session. */
export interface RequestContext {
  readonly memory: GuestMemory;
  readonly device: Device;
  readonly observer: RequestObserver;
  readonly vrings: readonly Vring[];
  readonly running: boolean;
  readonly transfer: StateTransfer;
  /** What GET_FEATURES answers. */
  readonly offeredFeatures: FeatureBits;
  features: FeatureBits;
  protocolFeatures: FeatureBits;
  status: number;
  negotiated(protocolFeature: number): boolean;
  /** Throws FrontendError where there is no such ring. */
  ring(index: number): Vring;
  start(): void;
  stop(): void;
  reset(): void;
  setChannel(fd: number): void;
  setDirtyLog(region: LogRegion, fd: number): void;
  begin(): void;
  changeMemory(gpa: bigint | null, change: () => void): void;
  queueSeen(): void;
}
