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

  constructor(arena: Arena, pool: number) {
    this.#arena = arena;
    this.#offset = REGISTER_PAGES + pool * ADV_PAGE_BYTES;
    this.fd = createMemfd(`ringfabric-registers-${pool}`, ADV_PAGE_BYTES);
    sealSize(this.fd.number);
    arena.mapOwn(this.#offset, this.fd.number, ADV_PAGE_BYTES);
  }

  /** Takes the page out of the arena; no queue uses it any more. */
  close(): void {
    this.#arena.unmapOwn(this.#offset, ADV_PAGE_BYTES);
    this.fd.close();
  }
}
