/**
 * The pages through which drivers ring the doorbells of their advanced queues: a memory file for each lease, mapped
 * into the arena and handed to the driver. It cannot be resized, and it holds nothing but that VF's registers.
 */
import { ADV_PAGE_BYTES } from "../../shared/layout/advanced.ts";
import { REGISTER_PAGES } from "../../shared/layout/nic.ts";
import { type Arena, createMemfd, type Fd, sealSize } from "../../shared/os/mod.ts";

/** One pool's register page. */
export class RegisterPage {
  readonly fd: Fd;
  readonly #arena: Arena;
  readonly #offset: number;

  /** `before`: the page of an engine for which this process stands by, in place of a new one. */
  constructor(arena: Arena, pool: number, before?: Fd) {
    this.#arena = arena;
    this.#offset = REGISTER_PAGES + pool * ADV_PAGE_BYTES;
    this.fd = before ?? createMemfd(`ringfabric-registers-${pool}`, ADV_PAGE_BYTES);
    if (!before) sealSize(this.fd.number);
    this.map();
  }

  /** Maps the page over the arena: once more, when the engine's whole state has been replaced. */
  map(): void {
    this.#arena.mapOwn(this.#offset, this.fd.number, ADV_PAGE_BYTES);
  }

  /** Takes the page out of the arena; no queue uses it any more. */
  close(): void {
    this.#arena.unmapOwn(this.#offset, ADV_PAGE_BYTES);
    this.fd.close();
  }
}
