/**
 * TAP interfaces (linux/if_tun.h): the kernel's end is an Ethernet interface, this end a file of frames, each with the
 * virtio-net header of 12 bytes that a ring has too. The interface goes with the last of its files, unless it was made
 * to stay.
 */
import { Fd } from "./fd.ts";
import { IFREQ_BYTES, IFREQ_VALUE, interfaceRequest } from "./interfaces.ts";
import { check, EACCES, EBUSY, EINVAL, ENODEV, ENOENT, EPERM, errno, libc, OsError } from "./libc.ts";

const O_RDWR = 0o2;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const TUNSETIFF = 0x400454can;
const TUNSETOFFLOAD = 0x400454d0n;
const TUNSETVNETHDRSZ = 0x400454d8n;
const TUNSETVNETLE = 0x400454dcn;
const TUNSETCARRIER = 0x400454e2n;
const TUNGETIFF = 0x800454d2n;
const TUNGETDEVNETNS = 0x54e3n;
const IFF_TAP = 0x0002;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const FLAGS = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
const HEADER_BYTES = 12;

/** What the reader of a TAP takes (TUN_F_*). */
export const TUN_F_CSUM = 0x01;
export const TUN_F_TSO4 = 0x02;
export const TUN_F_TSO6 = 0x04;
export const TUN_F_TSO_ECN = 0x08;
export const TUN_F_USO4 = 0x20;
export const TUN_F_USO6 = 0x40;

/** The file behind a TAP. */
export class Tap implements Disposable {
  readonly fd: Fd;
  readonly name: string;

  private constructor(fd: Fd, name: string) {
    this.fd = fd;
    this.name = name;
  }

  /**
   * Opens TAP `name` of the network namespace that this thread is in, and makes it if it is not there. One that is made
   * here can be opened several times, so that a successor has it before its predecessor lets go. Throws what to do.
   */
  static open(name: string): Tap {
    const path = "/dev/net/tun";
    const fd = libc().open(new TextEncoder().encode(`${path}\0`), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) throw openFault(name, new OsError("open", path, errno()));
    const file = new Fd(fd);
    try {
      let code = 0;
      // One that was made beforehand takes one file or many, as its maker has said.
      for (const flags of [FLAGS | IFF_MULTI_QUEUE, FLAGS]) {
        const request = interfaceRequest(name);
        request.setUint16(IFREQ_VALUE, flags, true);
        code = libc().ioctl(fd, TUNSETIFF, new Uint8Array(request.buffer)) < 0 ? errno() : 0;
        if (code !== EINVAL) break;
      }
      if (code !== 0) throw attachFault(name, new OsError("TUNSETIFF", name, code));
      setWord(fd, TUNSETVNETHDRSZ, "TUNSETVNETHDRSZ", HEADER_BYTES);
      setWord(fd, TUNSETVNETLE, "TUNSETVNETLE", 1);
      return new Tap(file, name);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /** Says what its reader takes of the kernel (TUN_F_* bits): the kernel finishes the rest itself. */
  setOffload(bits: number): void {
    if (libc().ioctl_value(this.fd.number, TUNSETOFFLOAD, BigInt(bits)) >= 0) return;
    const code = errno();
    // Kernels before 6.2 know nothing of UDP segmentation, and finish it.
    const older = bits & ~(TUN_F_USO4 | TUN_F_USO6);
    if (code !== EINVAL || older === bits) throw new OsError("TUNSETOFFLOAD", this.name, code);
    check(libc().ioctl_value(this.fd.number, TUNSETOFFLOAD, BigInt(older)), "TUNSETOFFLOAD", this.name);
  }

  /** What the interface is called now, in whatever namespace it is; `undefined`: it is gone. */
  get interface(): string | undefined {
    const request = new Uint8Array(IFREQ_BYTES);
    if (libc().ioctl(this.fd.number, TUNGETIFF, request) < 0) return undefined;
    return new TextDecoder().decode(request.subarray(0, request.indexOf(0)));
  }

  /** The network namespace in which the interface is now. Throws OsError without CAP_NET_ADMIN. */
  namespace(): Fd {
    return new Fd(check(libc().ioctl_value(this.fd.number, TUNGETDEVNETNS, 0n), "TUNGETDEVNETNS", this.name));
  }

  /** Says whether the interface has a carrier. */
  setCarrier(on: boolean): void {
    setWord(this.fd.number, TUNSETCARRIER, "TUNSETCARRIER", on ? 1 : 0);
  }

  close(): void {
    this.fd.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function setWord(fd: number, call: bigint, what: string, value: number): void {
  check(libc().ioctl(fd, call, new Int32Array([value])), what, `fd ${fd}`);
}

function openFault(name: string, cause: OsError): Error {
  const isAbsent = cause.errno === ENOENT || cause.errno === ENODEV;
  const advice = isAbsent ? "the kernel has no TAPs here: modprobe tun, or give the container /dev/net/tun" : "";
  return new Error(`Cannot open TAP ${name}: ${[advice, cause.message].filter((text) => text !== "").join(": ")}`, {
    cause,
  });
}

function attachFault(name: string, cause: OsError): Error {
  const advice = cause.errno === EPERM || cause.errno === EACCES
    ? "this needs CAP_NET_ADMIN, or a TAP made beforehand: " +
      `ip tuntap add dev ${name} mode tap user $USER vnet_hdr multi_queue`
    : cause.errno === EBUSY
    ? "another program has it"
    : cause.errno === EINVAL
    ? `there is an interface ${name} that is no TAP: choose another name`
    : cause.message;
  return new Error(`Cannot open TAP ${name}: ${advice}`, { cause });
}
