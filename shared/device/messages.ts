/**
 * The device socket's messages (docs/device-socket.md): how a service that drives queues gets at a VF. The verbs
 * follow vfio-user's. One connection is one VF's lease. Requests carry a number, replies repeat it; descriptors ride
 * along as SCM_RIGHTS in the order in which the fields name them.
 */
import { z } from "zod";

/** Longest message. */
export const MESSAGE_BYTES_MAX = 64 * 1024;

const iova = z.union([z.bigint(), z.number().int()]).transform((n) => BigInt(n))
  .refine((n) => n >= 0n && n < 1n << 64n, "is not a 64-bit unsigned number");
const bytes = z.union([z.bigint(), z.number().int()]).transform((n) => Number(n))
  .refine((n) => Number.isSafeInteger(n) && n >= 0, "is not a size");

/** Text that operators are shown, of somebody who may not be trusted. */
const shown = (charactersMax: number) =>
  z.string().max(charactersMax).regex(/^\P{C}*$/u, "has characters that cannot be shown");

/** Why something ended, in whatever words: an end is never refused. */
const reason = z.string().max(500).transform((text) => text.replaceAll(/\p{C}/gu, "?"));

/** One range of guest memory. Its descriptor is one of the message's. */
export const MemoryRegion = z.strictObject({
  iova,
  size: bytes,
  /** Where the range begins in the file. */
  offset: bytes,
  perm: z.enum(["r", "rw"]).default("rw"),
});
export type MemoryRegion = z.output<typeof MemoryRegion>;

/** The PF's and the uplink's queues are driven like a VF's. */
export const PoolName = z.union([z.number().int().min(0), z.literal("uplink"), z.literal("pf")]);
export type PoolName = z.output<typeof PoolName>;

const index = z.number().int().min(0);

/** What a client may ask. */
export const Request = z.discriminatedUnion("op", [
  /** Takes the lease of a VF; a lease whose owner died is taken over. */
  z.strictObject({
    op: z.literal("attach"),
    vf: PoolName,
    owner: shown(200),
    /** Which data path this is, for the API: the guest's own rings, or somebody's who stands between. */
    mode: z.enum(["emulated", "passthrough"]).default("passthrough"),
    /** The plugin that drives the VF from inside the guest. */
    plugin: shown(100).optional(),
    /** One-time right to the VF, for drivers that are not the hypervisor's own (`passthrough.sock`). */
    token: z.string().max(200).optional(),
    /**
     * Of emulated mode, how frames go. Unless they are copied the queues lead into a guest's memory: they end with their
     * owner, who alone can give the guest back what the NIC has done.
     */
    dataPath: z.enum(["copy", "zerocopy", "headersplit"]).optional(),
  }),
  /** Gives it back: queues stop, memory is unmapped. The reason is shown in the VF's API. */
  z.strictObject({ op: z.literal("detach"), reason: reason.default("detached") }),
  /** Replaces the whole memory table in one step; one descriptor a region. Running queues go on if they can. */
  z.strictObject({ op: z.literal("dmaSet"), regions: z.array(MemoryRegion).max(64) }),
  /** Adds a region (one descriptor). */
  z.strictObject({ op: z.literal("dmaMap"), region: MemoryRegion }),
  /** Takes away the region with exactly this address and size. */
  z.strictObject({ op: z.literal("dmaUnmap"), iova, size: bytes }),
  /** Starts a queue; descriptors: kick if `kick`, then call if `call`. */
  z.strictObject({
    op: z.literal("queueStart"),
    index,
    flavour: z.enum(["split", "packed", "advanced"]),
    size: z.number().int(),
    /** The descriptors: a split queue's table, a packed or an advanced queue's ring. */
    desc: iova,
    /** Split: avail ring and used ring. Packed: the driver's and the device's event suppression. */
    avail: iova.default(0n),
    used: iova.default(0n),
    /**
     * Split: next avail index. Advanced: head. Packed: position as SET_VRING_BASE carries it (VIRTQ_PACKED_BASE_INITIAL).
     * -1: where the ring's used index, or its head register, says, after a crash.
     */
    base: z.number().int().min(-1).max(0xffff_ffff),
    /** A packed queue whose NIC has died: where it goes on if its driver has seen what was used last, at `base`. */
    next: z.number().int().min(0).max(0xffff_ffff).optional(),
    /** A packed queue whose driver may have gone past `base`: where it was is looked up, if the ring bears it out. */
    resume: z.boolean().default(false),
    features: iova.default(0n),
    /** A virtqueue's part of its front-end's inflight memory (shared/layout/inflight.ts), if it has one. */
    inflight: iova.optional(),
    /** Advanced receive queues: size of a packet buffer, and of a header buffer (0: frames are not split). */
    packetBytes: z.number().int().min(0).default(2048),
    headerBytes: z.number().int().min(0).default(0),
    /** Advanced: each frame has a virtio-net header of 12 bytes in front, which says what its sender left to be finished. */
    virtioHeader: z.boolean().default(false),
    /** Advanced: its buffers are those of a guest whose rings its driver serves (shared/layout/advanced.ts). */
    direct: z.boolean().optional(),
    /** A virtqueue: where writes into its used ring, or its device event area, are logged; they are not if it is not said. */
    log: iova.optional(),
    kick: z.boolean(),
    call: z.boolean(),
  }).refine(({ flavour, base }) => flavour === "packed" || base <= 0xffff, {
    path: ["base"],
    error: "is beyond 65535, which only a packed ring's is",
  }),
  /** Stops a queue between two bursts; answers where it would go on, as `base` of `queueStart`. */
  z.strictObject({ op: z.literal("queueStop"), index }),
  /** Answers the numbers of the queues that run, as `running`: for a driver that goes on where another process was. */
  z.strictObject({ op: z.literal("queues") }),
  /** Replaces the call eventfd of a running queue (a descriptor, or none). */
  z.strictObject({ op: z.literal("queueCall"), index, call: z.boolean() }),
  /** The driver of a running virtqueue accepts, or may ask for, what these virtio features say from now on. */
  z.strictObject({ op: z.literal("queueOffloads"), index, features: iova }),
  /** From now on such writes of a virtqueue, running or not, are logged there, or nowhere. */
  z.strictObject({ op: z.literal("queueLog"), index, log: iova.optional() }),
  /**
   * Has every write into the guest's memory logged: a bitmap in the file that comes along, a bit for each 4 KiB of IOVA.
   * It replaces the one before, to which nothing is written once this is answered.
   */
  z.strictObject({ op: z.literal("logStart"), offset: bytes, size: bytes }),
  /** Has nothing logged any more. */
  z.strictObject({ op: z.literal("logStop") }),
  /** Logs a write of the owner's own. */
  z.strictObject({ op: z.literal("logWritten"), iova, size: z.number().int().min(1).max(0x10000) }),
  /** Answers with the descriptor of a page that the VF shares with its driver: the doorbells of advanced queues. */
  z.strictObject({ op: z.literal("region"), name: z.enum(["registers"]) }),
  /** Ends the hold on the pool: what has come meanwhile is delivered to the queues that run now. */
  z.strictObject({ op: z.literal("resume") }),
  /** Answers when the engine has stood still: it has done with every descriptor that it had read before. */
  z.strictObject({ op: z.literal("fence") }),
  /** Has the NIC send a frame of a VF that announces an address to everybody in its VLAN. Takes no lease. */
  z.strictObject({
    op: z.literal("announce"),
    vf: PoolName,
    mac: z.string().regex(/^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/, "is a unicast MAC address"),
  }),
  /** Asks to be told which VFs there are and what their links are, now and whenever that changes. Takes no lease. */
  z.strictObject({ op: z.literal("watch") }),
]);
export type Request = z.output<typeof Request>;

/** A request as a client writes it. */
export type RequestInput = z.input<typeof Request>;

/** What the NIC answers. */
export type Reply =
  | { id: number; ok: true; value: Record<string, unknown> }
  | { id: number; ok: false; code: string; message: string };

/** When a VF's guest is interrupted, for whoever serves it in the NIC's place. */
interface VfCoalesce {
  adaptiveRx: boolean;
  rxUsecs: number;
  rxFrames: number;
  adaptiveTx: boolean;
  txUsecs: number;
  txFrames: number;
}

/** What a VF's guest sees of it beside frames. */
export interface VfLink {
  mac: string;
  up: boolean;
  mtu: number;
  /** Queue pairs that front-ends are offered. */
  queuePairs: number;
  coalesce: VfCoalesce;
}

/** What the NIC tells unasked. */
export type DeviceEvent =
  | { event: "vfs"; links: VfLink[]; uplink: VfLink }
  | { event: "queueError"; index: number; reason: string }
  | { event: "revoked"; reason: string }
  /** The NIC's process has died, and the one that stood by for it serves this connection: ask again what is unanswered. */
  | { event: "tookOver" };

/** Reply to `attach`. */
export interface Attached {
  maxQueuePairs: number;
  /** virtio features the NIC's queues can do; packed ones if VIRTIO_F_RING_PACKED is among them. */
  features: bigint;
}
