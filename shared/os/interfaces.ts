/**
 * Network interfaces by name (netdevice(7)): their state, addresses and MTU. Calls go through a socket, which stays in
 * the network namespace that it was made in; so one that was made in another namespace reaches that one's interfaces.
 */
import { Fd } from "./fd.ts";
import { check, EEXIST, ENODEV, errno, libc, OsError } from "./libc.ts";
import { SOCK_CLOEXEC } from "./socket.ts";

// sys/socket.h, linux/sockios.h, linux/if.h
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM = 2;
const SIOCGIFFLAGS = 0x8913n;
const SIOCSIFFLAGS = 0x8914n;
const SIOCSIFADDR = 0x8916n;
const SIOCSIFNETMASK = 0x891cn;
const SIOCGIFMTU = 0x8921n;
const SIOCSIFMTU = 0x8922n;
const SIOCSIFHWADDR = 0x8924n;
const SIOCGIFHWADDR = 0x8927n;
const SIOCGIFINDEX = 0x8933n;
const IFF_UP = 0x1;
const IFF_RUNNING = 0x40;
const ARPHRD_ETHER = 1;
/** struct ifreq: name of 16 bytes, then what is asked for. */
export const IFREQ_BYTES = 40;
export const IFREQ_VALUE = 16;
const NAME_CHARACTERS_MAX = 15;

/** What is known of an interface. */
export interface InterfaceState {
  index: number;
  /** It is switched on; it has a carrier as well. */
  isUp: boolean;
  isRunning: boolean;
  mtu: number;
  mac: string;
  /** Its frames are Ethernet's, and go somewhere. */
  isEthernet: boolean;
}

/** struct ifreq of an interface. */
export function interfaceRequest(name: string): DataView<ArrayBuffer> {
  const bytes = new TextEncoder().encode(name);
  if (bytes.length === 0 || bytes.length > NAME_CHARACTERS_MAX) {
    throw new Error(`Cannot use interface "${name}": names have 1 to ${NAME_CHARACTERS_MAX} characters`);
  }
  const request = new Uint8Array(IFREQ_BYTES);
  request.set(bytes);
  return new DataView(request.buffer);
}

/** The interfaces of one network namespace. */
export class Interfaces implements Disposable {
  readonly #socket: Fd;
  /** None where there is no IPv6. */
  readonly #socket6: Fd | undefined;

  /** Those of the namespace that this thread is in now. */
  constructor() {
    this.#socket = new Fd(check(libc().socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket", "inet datagram"));
    const socket6 = libc().socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    this.#socket6 = socket6 < 0 ? undefined : new Fd(socket6);
  }

  #ask(call: bigint, what: string, name: string, set?: (request: DataView) => void): DataView {
    const request = interfaceRequest(name);
    set?.(request);
    const result = libc().ioctl(this.#socket.number, call, new Uint8Array(request.buffer));
    check(result, what, name);
    return request;
  }

  /** How an interface is; `undefined` if there is none of that name. */
  state(name: string): InterfaceState | undefined {
    try {
      const flags = this.#ask(SIOCGIFFLAGS, "SIOCGIFFLAGS", name).getUint16(IFREQ_VALUE, true);
      const address = this.#ask(SIOCGIFHWADDR, "SIOCGIFHWADDR", name);
      const mac = Array.from({ length: 6 }, (_, i) => address.getUint8(IFREQ_VALUE + 2 + i));
      return {
        index: this.#ask(SIOCGIFINDEX, "SIOCGIFINDEX", name).getInt32(IFREQ_VALUE, true),
        isUp: (flags & IFF_UP) !== 0,
        isRunning: (flags & IFF_RUNNING) !== 0,
        mtu: this.#ask(SIOCGIFMTU, "SIOCGIFMTU", name).getInt32(IFREQ_VALUE, true),
        mac: mac.map((byte) => byte.toString(16).padStart(2, "0")).join(":"),
        isEthernet: address.getUint16(IFREQ_VALUE, true) === ARPHRD_ETHER,
      };
    } catch (error) {
      if (error instanceof OsError && error.errno === ENODEV) return undefined;
      throw error;
    }
  }

  /** Switches an interface on. */
  setUp(name: string): void {
    const flags = this.#ask(SIOCGIFFLAGS, "SIOCGIFFLAGS", name).getUint16(IFREQ_VALUE, true);
    if (flags & IFF_UP) return;
    this.#ask(SIOCSIFFLAGS, "SIOCSIFFLAGS", name, (request) => request.setUint16(IFREQ_VALUE, flags | IFF_UP, true));
  }

  setMtu(name: string, mtu: number): void {
    this.#ask(SIOCSIFMTU, "SIOCSIFMTU", name, (request) => request.setInt32(IFREQ_VALUE, mtu, true));
  }

  setMac(name: string, mac: string): void {
    this.#ask(SIOCSIFHWADDR, "SIOCSIFHWADDR", name, (request) => {
      request.setUint16(IFREQ_VALUE, ARPHRD_ETHER, true);
      mac.split(":").forEach((byte, i) => request.setUint8(IFREQ_VALUE + 2 + i, parseInt(byte, 16)));
    });
  }

  /** Gives an interface an address of `bytes` (4 or 16) in a network of `bits` bits. It may have it already. */
  addAddress(name: string, bytes: readonly number[], bits: number): void {
    if (bytes.length === 16) return this.#addIpv6(name, bytes, bits);
    const set = (address: readonly number[]) => (request: DataView) => {
      request.setUint16(IFREQ_VALUE, AF_INET, true);
      address.forEach((byte, i) => request.setUint8(IFREQ_VALUE + 4 + i, byte));
    };
    const mask = bytes.map((_, i) => 0xff & ~(0xff >> Math.max(0, Math.min(8, bits - i * 8))));
    this.#ask(SIOCSIFADDR, "SIOCSIFADDR", name, set(bytes));
    this.#ask(SIOCSIFNETMASK, "SIOCSIFNETMASK", name, set(mask));
  }

  #addIpv6(name: string, bytes: readonly number[], bits: number): void {
    if (!this.#socket6) throw new Error(`Cannot give ${name} an address: there is no IPv6 here`);
    // struct in6_ifreq: address of 16 bytes, prefix length u32, index i32.
    const request = new DataView(new ArrayBuffer(24));
    bytes.forEach((byte, i) => request.setUint8(i, byte));
    request.setUint32(16, bits, true);
    request.setInt32(20, this.#ask(SIOCGIFINDEX, "SIOCGIFINDEX", name).getInt32(IFREQ_VALUE, true), true);
    if (libc().ioctl(this.#socket6.number, SIOCSIFADDR, new Uint8Array(request.buffer)) >= 0) return;
    const code = errno();
    if (code !== EEXIST) throw new OsError("SIOCSIFADDR", name, code);
  }

  close(): void {
    this.#socket.close();
    this.#socket6?.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
