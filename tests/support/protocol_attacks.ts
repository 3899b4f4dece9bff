/** What a broken or hostile vhost-user front-end sends (hostile.md 12–15), and what must become of its connection. */
import { assertEquals } from "@std/assert";
import { Fd } from "../../shared/os/mod.ts";
import { libc } from "../../shared/os/libc.ts";
import { HEADER_BYTES, type RequestName } from "../../shared/vhost_user/mod.ts";
import { type FrontEnd, GUEST_BASE, memoryTable, singleRegion, u64, vringAddress, vringState } from "./front_end.ts";
import { Wakeup } from "./wakeup.ts";

const AF_UNIX = 1;
const SOCK_STREAM = 1;

/** One attack on the protocol. */
export interface ProtocolAttack {
  name: string;
  /** What the port's API must give as the reason for the connection's end; or that it goes on. */
  reason: RegExp | "goes on";
  attack(front: FrontEnd): Promise<void> | void;
}

const region = (front: FrontEnd, change: Partial<FrontEnd["region"]> = {}) => ({ ...front.region, ...change });
const U64_MAX = (1n << 64n) - 1n;

/** A header with any fields. */
function header(request: number, flags: number, size: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Uint32Array([request, flags, size]).buffer);
}

const afterNegotiation = (attack: ProtocolAttack["attack"]): ProtocolAttack["attack"] => async (front) => {
  await front.negotiate();
  await attack(front);
};
const afterMemory = (attack: ProtocolAttack["attack"]): ProtocolAttack["attack"] => async (front) => {
  await front.negotiate();
  await front.shareMemory();
  await attack(front);
};
const whileRunning = (attack: ProtocolAttack["attack"]): ProtocolAttack["attack"] => async (front) => {
  await front.start();
  await attack(front);
};
const sends =
  (name: RequestName | number, payload: Uint8Array = new Uint8Array(), fds: number[] = []) => (front: FrontEnd) =>
    front.send(name, payload, fds);

/** All attacks on the protocol. */
export const PROTOCOL_ATTACKS: ProtocolAttack[] = [
  // 12. messages
  { name: "12 version 0", reason: /version 0/, attack: (f) => f.raw(header(1, 0, 0)) },
  { name: "12 version 2", reason: /version 2/, attack: (f) => f.raw(header(1, 2, 0)) },
  { name: "12 payload of 4 GiB", reason: /4294967295 bytes/, attack: (f) => f.raw(header(2, 1, 0xffff_ffff)) },
  {
    name: "12 wrong payload size",
    reason: /SET_FEATURES with 7 bytes/,
    attack: sends("VHOST_USER_SET_FEATURES", new Uint8Array(7)),
  },
  {
    name: "12 payload where none belongs",
    reason: /SET_OWNER with 8 bytes/,
    attack: sends("VHOST_USER_SET_OWNER", new Uint8Array(8)),
  },
  { name: "12 unknown request", reason: /unknown request 77/, attack: sends(77) },
  { name: "12 request 0", reason: /unknown request 0/, attack: sends(0) },
  {
    name: "12 header cut off",
    reason: /ended inside a message/,
    attack: (f) => {
      f.raw(header(1, 1, 0).slice(0, HEADER_BYTES - 1));
      f.socket.close();
    },
  },
  {
    name: "12 payload cut off",
    reason: /ended inside a message/,
    attack: (f) => {
      f.raw(new Uint8Array([...header(2, 1, 8), 1, 2, 3]));
      f.socket.close();
    },
  },
  {
    name: "12 message that never ends, with its own end of the socket as a descriptor",
    reason: /not finished within/,
    attack: (f) => f.raw(new Uint8Array([...header(2, 1, 8), 1]), [f.socket.fd.number]),
  },
  {
    name: "12 a back-channel before it was negotiated",
    reason: /before its protocol feature/,
    attack: sends("VHOST_USER_SET_BACKEND_REQ_FD"),
  },
  {
    name: "12 a configuration that is shorter than it says",
    reason: /do not hold what they say they do/,
    attack: async (f) => {
      await f.negotiate();
      f.send("VHOST_USER_SET_CONFIG", Uint8Array.from([0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 2]));
    },
  },
  {
    name: "13 a back-channel that is no socket",
    reason: /is not a Unix socket/,
    attack: async (f) => {
      await f.negotiate();
      f.send("VHOST_USER_SET_BACKEND_REQ_FD", new Uint8Array(), [f.memory.fd.number]);
    },
  },
  {
    name: "12 memory slots before they were negotiated",
    reason: /before its protocol feature/,
    attack: sends("VHOST_USER_GET_MAX_MEM_SLOTS"),
  },
  {
    name: "12 features that were not offered",
    reason: /were not offered/,
    attack: sends("VHOST_USER_SET_FEATURES", u64(U64_MAX)),
  },
  {
    name: "12 protocol features that were not offered",
    reason: /were not offered/,
    attack: sends("VHOST_USER_SET_PROTOCOL_FEATURES", u64(U64_MAX)),
  },
  {
    name: "12 status of 9 bits",
    reason: /more than 8 bits/,
    attack: afterNegotiation(sends("VHOST_USER_SET_STATUS", u64(0x100n))),
  },
  {
    name: "12 log without the feature",
    reason: /before its protocol feature/,
    attack: sends("VHOST_USER_SET_LOG_BASE", u64(0n, 0n)),
  },
  {
    name: "12 message flood",
    reason: "goes on",
    attack: async (f) => {
      // As many as the socket takes without being read: the back-end must keep up with it, not fall over it.
      for (let i = 0; i < 100; i++) f.send("VHOST_USER_SET_OWNER");
      for (let i = 0; i < 2000; i++) await f.ask("VHOST_USER_GET_FEATURES");
    },
  },
  // 13. descriptors
  {
    name: "13 descriptors where none belong",
    reason: /SET_OWNER with 1 descriptors/,
    attack: (f) => f.send("VHOST_USER_SET_OWNER", new Uint8Array(), [f.memory.fd.number]),
  },
  {
    name: "13 too many descriptors for a table",
    reason: /with 9 descriptors/,
    attack: afterNegotiation((f) =>
      f.send("VHOST_USER_SET_MEM_TABLE", memoryTable([f.region]), Array(9).fill(f.memory.fd.number))
    ),
  },
  {
    name: "13 a hundred descriptors",
    reason: /too many descriptors/,
    attack: (f) => f.send("VHOST_USER_SET_OWNER", new Uint8Array(), Array(100).fill(f.memory.fd.number)),
  },
  {
    name: "13 table without descriptors",
    reason: /came with 0 descriptors/,
    attack: afterNegotiation((f) => f.send("VHOST_USER_SET_MEM_TABLE", memoryTable([f.region]))),
  },
  {
    name: "13 more descriptors than regions",
    reason: /1 memory regions came with 2/,
    attack: afterNegotiation((f) =>
      f.send("VHOST_USER_SET_MEM_TABLE", memoryTable([f.region]), [f.memory.fd.number, f.memory.fd.number])
    ),
  },
  {
    name: "13 kick that is a file",
    reason: /not an eventfd/,
    attack: afterMemory((f) => f.send("VHOST_USER_SET_VRING_KICK", u64(0n), [f.memory.fd.number])),
  },
  {
    name: "13 kick that is a socket",
    reason: /vring 0: its kick is not an eventfd/,
    attack: afterMemory((f) => f.send("VHOST_USER_SET_VRING_KICK", u64(0n), [f.socket.fd.number])),
  },
  {
    name: "13 call that is its own end of the connection, which would then never end",
    reason: /vring 0: its descriptor is a socket that cannot be used: its other end is this service's own/,
    attack: afterMemory((f) => f.send("VHOST_USER_SET_VRING_CALL", u64(0n), [f.socket.fd.number])),
  },
  {
    name: "13 call that is a socket with its own end in it",
    reason: /a socket that cannot be used: it has unread bytes/,
    attack: afterMemory(async (f) => {
      using call = new Wakeup("socket");
      call.put(f.socket.fd.number, f.reactor);
      f.send("VHOST_USER_SET_VRING_CALL", u64(0n), [call.sent.number]);
      await f.closedByBackEnd();
    }),
  },
  {
    name: "13 call that is a socket for datagrams",
    reason: /a socket that cannot be used: it is not a stream socket/,
    attack: afterMemory((f) => {
      using call = new Wakeup("datagram");
      f.send("VHOST_USER_SET_VRING_CALL", u64(0n), [call.sent.number]);
    }),
  },
  {
    name: "13 err that is a socket without another end",
    reason: /a socket that cannot be used: it is not connected/,
    attack: afterMemory((f) => {
      using lone = new Fd(libc().socket(AF_UNIX, SOCK_STREAM, 0));
      f.send("VHOST_USER_SET_VRING_ERR", u64(0n), [lone.number]);
    }),
  },
  {
    name: "13 call that is a file",
    reason: /vring 0: its descriptor is not an eventfd, a Unix socket or a pipe/,
    attack: afterMemory((f) => f.send("VHOST_USER_SET_VRING_CALL", u64(0n), [f.memory.fd.number])),
  },
  {
    name: "13 err that is a file",
    reason: /vring 1: its descriptor is not an eventfd, a Unix socket or a pipe/,
    attack: afterMemory((f) => f.send("VHOST_USER_SET_VRING_ERR", u64(1n), [f.memory.fd.number])),
  },
  {
    name: "13 memory that is a socket",
    reason: /not a file in memory/,
    attack: afterNegotiation((f) => f.send("VHOST_USER_SET_MEM_TABLE", memoryTable([f.region]), [f.socket.fd.number])),
  },
  {
    name: "13 memory that is an eventfd",
    reason: /not a file in memory/,
    attack: afterNegotiation((f) =>
      f.send("VHOST_USER_SET_MEM_TABLE", memoryTable([f.region]), [f.kicks[0]?.number ?? -1])
    ),
  },
  {
    name: "13 memory on a disk",
    reason: /not a file in memory/,
    attack: afterNegotiation(async (f) => {
      const path = await Deno.makeTempFile({ dir: new URL("../../.build", import.meta.url).pathname });
      await Deno.truncate(path, f.memory.view.byteLength);
      const fd = libc().open(new TextEncoder().encode(`${path}\0`), 2);
      f.send("VHOST_USER_SET_MEM_TABLE", memoryTable([f.region]), [fd]);
      libc().close(fd);
      await Deno.remove(path);
    }),
  },
  {
    name: "13 kick without its descriptor",
    reason: /no descriptor came/,
    attack: afterMemory(sends("VHOST_USER_SET_VRING_KICK", u64(0n))),
  },
  {
    name: "13 descriptor against the NOFD flag",
    reason: /against its flag/,
    attack: afterMemory((f) => f.send("VHOST_USER_SET_VRING_CALL", u64(0x100n), [f.calls[0]?.number ?? -1])),
  },
  // 14. memory
  {
    name: "14 nine regions in a table",
    reason: /9 memory regions/,
    attack: afterNegotiation((f) => f.send("VHOST_USER_SET_MEM_TABLE", memoryTable(Array(9).fill(f.region)))),
  },
  {
    name: "14 count without regions",
    reason: /8 memory regions in 8 bytes/,
    attack: afterNegotiation((f) => f.send("VHOST_USER_SET_MEM_TABLE", memoryTable([], 8))),
  },
  {
    name: "14 count of 4 billion",
    reason: /4294967295 memory regions/,
    attack: afterNegotiation((f) =>
      f.send("VHOST_USER_SET_MEM_TABLE", memoryTable([f.region], 0xffff_ffff), [f.memory.fd.number])
    ),
  },
  ...([
    ["empty region", { size: 0n }, /is empty/],
    ["region that wraps in guest addresses", { guestAddress: U64_MAX - 4095n }, /wraps/],
    ["region that wraps in user addresses", { userAddress: U64_MAX - 4095n }, /wraps/],
    ["region of 2^64 - 1 bytes", { size: U64_MAX }, /wraps|beyond any file/],
    ["offset near 2^64", { mmapOffset: U64_MAX - (4n << 20n) }, /beyond any file/],
    ["offset past the file", { mmapOffset: 4096n }, /of a file of/],
    ["region longer than the file", { size: 1n << 30n }, /of a file of/],
  ] as const).map(([name, change, reason]): ProtocolAttack => ({
    name: `14 ${name}`,
    reason,
    attack: afterNegotiation((f) =>
      f.send("VHOST_USER_SET_MEM_TABLE", memoryTable([region(f, change)]), [f.memory.fd.number])
    ),
  })),
  {
    name: "14 overlapping regions",
    reason: /overlap/,
    attack: afterNegotiation((f) =>
      f.send(
        "VHOST_USER_SET_MEM_TABLE",
        memoryTable([region(f, { size: 8192n }), region(f, { size: 8192n, guestAddress: GUEST_BASE + 4096n })]),
        [f.memory.fd.number, f.memory.fd.number],
      )
    ),
  },
  {
    name: "14 region added twice",
    reason: "goes on",
    attack: afterMemory(async (f) => {
      const again = await f.acknowledged("VHOST_USER_ADD_MEM_REG", singleRegion(f.region), [f.memory.fd.number]);
      // QEMU tells of each region once for every queue pair; rings start in it as if it had been told once.
      assertEquals(again, 0n);
      assertEquals(await f.startVring(1), 0n);
    }),
  },
  {
    name: "14 region removed that is not there",
    reason: "goes on",
    attack: afterMemory(async (f) => {
      const other = singleRegion(region(f, { guestAddress: 0n }));
      assertEquals(await f.acknowledged("VHOST_USER_REM_MEM_REG", other), 0n);
      // The one that is there still is.
      assertEquals(await f.startVring(1), 0n);
    }),
  },
  // 15. vrings
  {
    name: "15 vring 33",
    reason: /vring 33: vrings are 0–32/,
    attack: afterMemory(sends("VHOST_USER_SET_VRING_NUM", vringState(33, 256))),
  },
  {
    name: "15 vring 2^32 - 1",
    reason: /vring 4294967295/,
    attack: afterMemory(sends("VHOST_USER_SET_VRING_ADDR", vringAddress(0xffff_ffff, 0n, 0n, 0n))),
  },
  {
    name: "15 vring 255 in a kick",
    reason: /vring 255/,
    attack: afterMemory((f) => f.send("VHOST_USER_SET_VRING_KICK", u64(255n), [f.kicks[0]?.number ?? -1])),
  },
  ...[0, 1, 3, 100, 32769, 65536, 0xffff_ffff].map((size): ProtocolAttack => ({
    name: `15 queue size ${size}`,
    reason: /sizes are powers of two/,
    attack: afterMemory(sends("VHOST_USER_SET_VRING_NUM", vringState(0, size))),
  })),
  ...([["descriptor table", 8, 0, 0], ["used ring", 0, 2, 0], ["avail ring", 0, 0, 1]] as const).map((
    [name, d, u, a],
  ): ProtocolAttack => ({
    name: `15 misaligned ${name}`,
    reason: /not aligned/,
    attack: afterMemory((f) => {
      const { desc, avail, used, size } = f.guest.tx();
      f.send("VHOST_USER_SET_VRING_NUM", vringState(1, size));
      f.send("VHOST_USER_SET_VRING_ADDR", vringAddress(1, f.user(desc + d), f.user(used + u), f.user(avail + a)));
      f.send("VHOST_USER_SET_VRING_KICK", u64(1n), [f.kicks[1]?.number ?? -1]);
      f.send("VHOST_USER_SET_VRING_ENABLE", vringState(1, 1));
    }),
  })),
  {
    name: "15 rings that leave the memory",
    reason: /not in the guest's memory/,
    attack: afterMemory((f) => {
      const end = f.memory.view.byteLength;
      f.send("VHOST_USER_SET_VRING_NUM", vringState(1, 256));
      f.send("VHOST_USER_SET_VRING_ADDR", vringAddress(1, f.user(end - 4096 + 16), f.user(0), f.user(0)));
      f.send("VHOST_USER_SET_VRING_KICK", u64(1n), [f.kicks[1]?.number ?? -1]);
      f.send("VHOST_USER_SET_VRING_ENABLE", vringState(1, 1));
    }),
  },
  {
    name: "15 another size while it runs",
    reason: /its size is fixed/,
    attack: whileRunning(sends("VHOST_USER_SET_VRING_NUM", vringState(0, 128))),
  },
  {
    name: "15 the same size while it runs",
    reason: "goes on",
    attack: whileRunning(sends("VHOST_USER_SET_VRING_NUM", vringState(0, 64))),
  },
  {
    name: "15 base while it runs",
    reason: /stop it before its base/,
    attack: whileRunning(sends("VHOST_USER_SET_VRING_BASE", vringState(0, 1))),
  },
  {
    name: "15 base 65536",
    reason: /bases are 0–65535/,
    attack: afterMemory(sends("VHOST_USER_SET_VRING_BASE", vringState(0, 65536))),
  },
  {
    name: "15 enable before set-up",
    reason: "goes on",
    attack: afterNegotiation((f) => f.send("VHOST_USER_SET_VRING_ENABLE", vringState(0, 1))),
  },
  {
    name: "15 enable 2",
    reason: /it is 0 or 1/,
    attack: afterNegotiation(sends("VHOST_USER_SET_VRING_ENABLE", vringState(0, 2))),
  },
  {
    name: "15 kick before anything else",
    reason: "goes on",
    attack: (f) => f.send("VHOST_USER_SET_VRING_KICK", u64(0n), [f.kicks[0]?.number ?? -1]),
  },
];
