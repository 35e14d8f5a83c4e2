import type { GuestSlice } from '../memory/guest-memory.js';

/** The parts of a ring as memory shared with the guest, detached together when the ring is let go of. */
export class RingViews {
  readonly #views: { slice: GuestSlice; view: ArrayBuffer }[] = [];

  of(slice: GuestSlice): ArrayBuffer {
    const view = slice.region.mapping.view(slice.region.lead + slice.offset, slice.lenBytes);
    this.#views.push({ slice, view });
    return view;
  }

  close(): void {
    for (const { slice, view } of this.#views.splice(0)) slice.region.mapping.release(view);
  }
}
