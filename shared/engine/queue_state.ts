/** What is known of a queue, for APIs: its format, and why it stopped. */
import {
  BAD_ADDRESS,
  BAD_AVAIL_IDX,
  BAD_CHAIN_LENGTH,
  BAD_DESCRIPTOR,
  BAD_DIRECTION,
  BAD_HEAD,
  BAD_HEADER,
  BAD_INDIRECT,
  BAD_NEXT,
  BAD_TAIL,
  FLAVOUR_ADVANCED,
  FLAVOUR_PACKED,
  LOG_GONE,
  LOG_TOO_SMALL,
  MEMORY_GONE,
  Q_CALLS,
  Q_CALLS_SAVED,
  Q_ERROR,
  Q_ERROR_DETAIL,
  Q_FLAVOUR,
  Q_FRAMES,
  Q_SIZE,
  Q_STATE,
  QUEUE_ERROR,
  RING_UNMAPPED,
} from "../layout/nic.ts";
import { type KickRecord, kickRecord } from "./quarantine.ts";

/** Why a queue stopped, by the engine's verdict. */
export const QUEUE_REASONS: Record<number, string> = {
  [BAD_AVAIL_IDX]: "avail index jumps by more than the queue size",
  [BAD_HEAD]: "head index is not below the queue size",
  [BAD_NEXT]: "next index is not below the table size",
  [BAD_CHAIN_LENGTH]: "descriptor chain is longer than the queue, or takes too many descriptors for a frame",
  [BAD_ADDRESS]: "buffer is outside the guest's memory",
  [BAD_DIRECTION]: "buffer has the wrong direction",
  [BAD_INDIRECT]: "indirect table is malformed",
  [BAD_HEADER]: "chain is shorter than the virtio-net header",
  [MEMORY_GONE]: "the guest's memory file was truncated",
  [RING_UNMAPPED]: "rings are not in the guest's memory, or not aligned",
  [BAD_TAIL]: "doorbell is not below the queue size",
  [BAD_DESCRIPTOR]: "descriptor is malformed, or a frame's last one is missing",
  [LOG_TOO_SMALL]: "the dirty log has no bit for an address that was written",
  [LOG_GONE]: "the dirty log's file was truncated",
};

/** State of one queue, for APIs. */
export interface QueueState extends KickRecord {
  index: number;
  kind: "rx" | "tx";
  flavour: "split" | "packed" | "advanced";
  state: "running" | "error";
  size: number;
  reason?: string;
  detail?: string;
  /** Frames put in, or given back, since it started. */
  frames: number;
  /** Interrupts raised, and interrupts that another one stood for. */
  calls: number;
  callsSaved: number;
}

/** The format of the queue at `at`. */
export function flavourOf(view: DataView, at: number): QueueState["flavour"] {
  const flavour = view.getUint32(at + Q_FLAVOUR, true);
  return flavour === FLAVOUR_ADVANCED ? "advanced" : flavour === FLAVOUR_PACKED ? "packed" : "split";
}

/** State of the queue at `at`, which is number `index` of its pool. */
export function queueState(view: DataView, at: number, index: number, nowNs: number): QueueState {
  const error = view.getUint32(at + Q_STATE, true) === QUEUE_ERROR;
  const reason = QUEUE_REASONS[view.getUint32(at + Q_ERROR, true)] ?? "unknown";
  const detail = `0x${view.getBigUint64(at + Q_ERROR_DETAIL, true).toString(16)}`;
  return {
    index,
    kind: index % 2 === 0 ? "rx" : "tx",
    flavour: flavourOf(view, at),
    state: error ? "error" : "running",
    size: view.getUint32(at + Q_SIZE, true),
    ...(error ? { reason, detail } : {}),
    frames: Number(view.getBigUint64(at + Q_FRAMES, true)),
    calls: Number(view.getBigUint64(at + Q_CALLS, true)),
    callsSaved: Number(view.getBigUint64(at + Q_CALLS_SAVED, true)),
    ...kickRecord(view, at, nowNs),
  };
}
