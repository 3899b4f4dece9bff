/**
 * A frame that announces where an address is: RFC 903's reverse request, broadcast, as hypervisors send it when a guest
 * has moved. It goes the way of every frame of its pool, by that pool's policy, into its VLAN.
 */
import {
  ANNOUNCEMENT,
  B_RECEIVE_SPENT,
  B_UNITS,
  FRAME_BYTES_LEAST,
  Q_POOL,
  QUEUE_STRIDE,
  QUEUES,
  QUEUES_PER_POOL,
} from "../../shared/layout/nic.ts";
import { beginGather, noHead, recordAt, recordPlain } from "./batch/record.ts";
import { batch, context } from "./context.ts";
import { publishDirty } from "./queue/format.ts";
import { sendsOwn } from "./schedule/rate.ts";
import { forward } from "./switch/forward.ts";

// As they are loaded: network byte order.
const ETHERTYPE_RARP: u16 = 0x3580;
/** Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4: eight bytes with the operation. */
const ETHERNET_IPV4_REVERSE_REQUEST: u64 = 0x0300_0406_0008_0100;
/** No share is asked for: it is one frame. */
const UNITS_MOST: u32 = 1 << 30;

/** Sends the announcement of `mac` as from the first transmit queue of `pool`, whether or not that has started. */
export function announce(pool: u32, mac: u64): void {
  const q = context + QUEUES + (pool * QUEUES_PER_POOL + 1) * QUEUE_STRIDE;
  const frame = context + ANNOUNCEMENT;
  memory.fill(frame, 0, FRAME_BYTES_LEAST);
  memory.fill(frame, 0xff, 6);
  store<u64>(frame, mac, 6);
  store<u16>(frame, ETHERTYPE_RARP, 12);
  store<u64>(frame, ETHERNET_IPV4_REVERSE_REQUEST, 14);
  // Sender and target are both who is announced; their IPv4 addresses are not known.
  store<u64>(frame, mac, 22);
  store<u64>(frame, mac, 32);
  store<u32>(q, pool, Q_POOL);
  store<u32>(batch(), 0, B_UNITS);
  store<u32>(batch(), 0, B_RECEIVE_SPENT);
  beginGather();
  recordPlain(recordAt(0), frame, FRAME_BYTES_LEAST, noHead());
  sendsOwn(true);
  forward(q, 1, UNITS_MOST);
  sendsOwn(false);
  publishDirty();
}
