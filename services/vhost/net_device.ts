/**
 * The network device that a front-end sees beside its rings: its configuration space (virtio 1.2 §5.1.4), and what its
 * driver asks for on the control queue. A driver's wishes go to the PF, whose policy grants or refuses them.
 */
import { type LinkPatch, MacAddress, type Multicast, MULTICAST_GROUPS_MAX } from "../../shared/api/mod.ts";
import type { VfLink } from "../../shared/device/mod.ts";
import { CONFIG_HEADER_BYTES, VHOST_USER_MAX_CONFIG_SIZE } from "../../shared/vhost_user/mod.ts";
import {
  VIRTIO_NET_CONFIG_MAC,
  VIRTIO_NET_CONFIG_MAX_VIRTQUEUE_PAIRS,
  VIRTIO_NET_CONFIG_MTU,
  VIRTIO_NET_CONFIG_STATUS,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_S_ANNOUNCE,
  VIRTIO_NET_S_LINK_UP,
} from "../../shared/layout/virtio.ts";
import type { Command } from "./control/commands.ts";
import { macText } from "./mac_text.ts";
import { hasBit } from "./negotiation.ts";
import type { Part } from "./standby/mod.ts";

const MAC_BYTES = 6;
const BROADCAST = "ff:ff:ff:ff:ff:ff";

/** What the device works with. */
export interface NetDeviceParts {
  /** Asks the PF; answers why it is refused, if it is. `stopped` says that nobody waits for the answer any more. */
  wish(wish: LinkPatch, stopped: AbortSignal): Promise<string | undefined>;
  /** What a driver wanted to receive is no longer wanted. */
  forgetWishes(): void;
  /** Queue pairs of the device. */
  queuePairs(): number;
  /** The driver uses so many queue pairs from now on; answers why not, if its rings cannot be served. */
  useQueuePairs(pairs: number, stopped: AbortSignal): Promise<string | undefined>;
  /** The driver accepts these of the offloads that it negotiated; answers why not, if it cannot be so. */
  useOffloads(features: bigint, stopped: AbortSignal): Promise<string | undefined>;
  /** The configuration space has changed. */
  changed(): void;
}

/** What of the device is kept. */
export interface KeptDevice {
  link: VfLink;
  features: bigint;
  mtu: number | undefined;
  announce: boolean;
  written: (number | undefined)[];
  allMulticast: boolean;
  groups: string[] | undefined;
  promisc: boolean;
  hasWished: boolean;
}

/** The device of one session. */
export class NetDevice {
  readonly #parts: NetDeviceParts;
  #link: VfLink;
  /** What was negotiated. */
  #features = 0n;
  /** The MTU that the driver has been told: it does not change under it (§5.1.4.1). */
  #mtu: number | undefined;
  #announce = false;
  /** The bytes of an address that the driver is writing, in whatever order. */
  readonly #written: (number | undefined)[] = [];
  #allMulticast = false;
  /** The driver's own groups; undefined: it has not said. */
  #groups: string[] | undefined;
  #promisc = false;
  /** Whether the PF knows wishes of this driver. */
  #hasWished = false;

  constructor(link: VfLink, parts: NetDeviceParts) {
    this.#link = link;
    this.#parts = parts;
  }

  // Configuration space --------------------------------------------------------------------------------------

  /** The PF has changed the port. A driver whose link comes back is asked to announce itself. */
  set link(link: VfLink) {
    const mayAnnounce = hasBit(this.#features, VIRTIO_NET_F_GUEST_ANNOUNCE);
    if (link.up && !this.#link.up && mayAnnounce) this.#announce = true;
    const before = this.#link;
    this.#link = link;
    if (link.mac !== before.mac || link.up !== before.up || link.mtu !== before.mtu) this.#parts.changed();
  }

  /** What the front-end has negotiated. */
  set features(features: bigint) {
    this.#features = features;
    if (hasBit(features, VIRTIO_NET_F_MTU)) this.#mtu ??= this.#link.mtu;
  }

  /** The answer to GET_CONFIG: the request's header and what it asks for; nothing at all if that cannot be had. */
  configAnswer(payload: DataView<ArrayBuffer>, isNegotiated: boolean): Uint8Array {
    if (!isNegotiated || payload.byteLength < CONFIG_HEADER_BYTES) return new Uint8Array();
    const config = this.config(payload.getUint32(0, true), payload.getUint32(4, true));
    if (!config) return new Uint8Array();
    return new Uint8Array([...new Uint8Array(payload.buffer, 0, CONFIG_HEADER_BYTES), ...config]);
  }

  /** `bytes` bytes of the configuration space from `offset` on; `undefined` if there are none. */
  config(offset: number, bytes: number): Uint8Array<ArrayBuffer> | undefined {
    if (offset + bytes > VHOST_USER_MAX_CONFIG_SIZE) return undefined;
    const space = new Uint8Array(VHOST_USER_MAX_CONFIG_SIZE);
    const view = new DataView(space.buffer);
    const { mac, up, mtu } = { ...this.#link, mtu: this.#mtu ?? this.#link.mtu };
    space.set(mac.split(":").map((byte) => parseInt(byte, 16)), VIRTIO_NET_CONFIG_MAC);
    const status = (up ? VIRTIO_NET_S_LINK_UP : 0) | (this.#announce ? VIRTIO_NET_S_ANNOUNCE : 0);
    view.setUint16(VIRTIO_NET_CONFIG_STATUS, status, true);
    view.setUint16(VIRTIO_NET_CONFIG_MAX_VIRTQUEUE_PAIRS, this.#parts.queuePairs(), true);
    view.setUint16(VIRTIO_NET_CONFIG_MTU, mtu, true);
    return space.slice(offset, offset + bytes);
  }

  /**
   * Writes into the configuration space: a driver without CTRL_MAC_ADDR sets its address so, byte by byte if it likes;
   * it is in force when all of them have come. Answers why not, if it is refused.
   */
  async setConfig(offset: number, bytes: Uint8Array, stopped: AbortSignal): Promise<string | undefined> {
    const end = offset + bytes.length;
    if (end > VIRTIO_NET_CONFIG_MAC + MAC_BYTES) {
      return "of the configuration space only the MAC address can be written";
    }
    bytes.forEach((byte, i) => this.#written[offset + i] = byte);
    const known = this.#written.filter((byte) => byte !== undefined);
    if (known.length < MAC_BYTES) return undefined;
    this.#written.length = 0;
    return await this.#setMac(macText(known), stopped);
  }

  async #setMac(mac: string, stopped: AbortSignal): Promise<string | undefined> {
    if (!MacAddress.safeParse(mac).success) return `${mac} cannot be a device's address`;
    return mac === this.#link.mac ? undefined : await this.#wish({ mac }, stopped);
  }

  // The control queue ----------------------------------------------------------------------------------------

  /** Does what a command asks for; answers why not, if it is refused. `stopped`: nobody waits for it any more. */
  async carryOut(command: Command, stopped: AbortSignal): Promise<string | undefined> {
    switch (command.kind) {
      case "mac":
        return await this.#setMac(command.mac, stopped);
      case "promisc": {
        if (command.on === this.#promisc) return undefined;
        const refusal = await this.#wish({ promisc: command.on }, stopped);
        if (refusal === undefined) this.#promisc = command.on;
        return refusal;
      }
      case "allMulticast":
        return await this.#receive(command.on, this.#groups, stopped);
      case "addresses": {
        const unicast = command.unicast.filter((mac) => mac !== this.#link.mac);
        const groups = command.multicast.filter((mac) => mac !== BROADCAST);
        const refusal = unicast.length === 0 ? undefined : await this.#wish({ unicast }, stopped);
        return refusal ?? await this.#receive(this.#allMulticast, groups, stopped);
      }
      case "vlan":
        // Filtering is best-effort (§5.1.6.5.3): what the PF allows arrives, wanted or not.
        return command.on && command.id !== 0 ? await this.#wish({ vlan: command.id }, stopped) : undefined;
      case "announced":
        this.#announce = false;
        return undefined;
      case "queuePairs":
        if (command.pairs < 1 || command.pairs > this.#parts.queuePairs()) {
          return `${command.pairs} queue pairs: the device has 1 to ${this.#parts.queuePairs()}`;
        }
        return await this.#parts.useQueuePairs(command.pairs, stopped);
      case "offloads":
        return await this.#parts.useOffloads(command.features, stopped);
    }
  }

  /** The multicast that the driver wants to receive. */
  async #receive(all: boolean, groups: string[] | undefined, stopped: AbortSignal): Promise<string | undefined> {
    const wanted = (all: boolean, groups: string[] | undefined): Multicast | null => {
      if (all || (groups?.length ?? 0) > MULTICAST_GROUPS_MAX) return "all";
      return groups ?? null;
    };
    const [before, after] = [wanted(this.#allMulticast, this.#groups), wanted(all, groups)];
    const isSame = JSON.stringify(before) === JSON.stringify(after);
    const refusal = isSame ? undefined : await this.#wish({ multicast: after }, stopped);
    if (refusal === undefined) [this.#allMulticast, this.#groups] = [all, groups];
    return refusal;
  }

  async #wish(wish: LinkPatch, stopped: AbortSignal): Promise<string | undefined> {
    this.#hasWished = true;
    return await this.#parts.wish(wish, stopped);
  }

  /** What whoever stands by has of it. */
  get kept(): Part {
    const value: KeptDevice = {
      ...{ link: this.#link, features: this.#features, mtu: this.#mtu, announce: this.#announce },
      ...{ written: this.#written, allMulticast: this.#allMulticast, groups: this.#groups },
      ...{ promisc: this.#promisc, hasWished: this.#hasWished },
    };
    return { value };
  }

  /** Goes on with the device of a process that has ended. */
  adopt(kept: KeptDevice): void {
    [this.#link, this.#features, this.#mtu, this.#announce] = [kept.link, kept.features, kept.mtu, kept.announce];
    this.#written.push(...kept.written);
    [this.#allMulticast, this.#groups] = [kept.allMulticast, kept.groups];
    [this.#promisc, this.#hasWished] = [kept.promisc, kept.hasWished];
  }

  /** The driver is gone, or begins anew: what it wanted to receive is not the next one's wish. */
  reset(): void {
    this.#announce = this.#allMulticast = this.#promisc = false;
    this.#groups = this.#mtu = undefined;
    this.#written.length = 0;
    if (!this.#hasWished) return;
    this.#hasWished = false;
    this.#parts.forgetWishes();
  }
}
