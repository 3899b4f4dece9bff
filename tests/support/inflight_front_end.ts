/** Front-ends of the tests that keep inflight memory, as Cloud Hypervisor does: made once, and handed to every back-end. */
import { type Fd } from "../../shared/os/mod.ts";
import { HEADER_BYTES, INFLIGHT_BYTES, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD } from "../../shared/vhost_user/mod.ts";
import { bits, type FrontEnd, type FrontEndGuest, PROTOCOL_FEATURES, u64 } from "./front_end.ts";

/** The protocol features of a front-end that keeps inflight memory. */
export const WITH_INFLIGHT = PROTOCOL_FEATURES | bits(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD);

/** Payload of both messages. */
export function inflightPayload(
  { mmapSize = 0n, mmapOffset = 0n, queues = 2, queueSize = 64, bytes = INFLIGHT_BYTES } = {},
): Uint8Array<ArrayBuffer> {
  const payload = new Uint8Array(INFLIGHT_BYTES);
  const view = new DataView(payload.buffer);
  view.setBigUint64(0, mmapSize, true);
  view.setBigUint64(8, mmapOffset, true);
  view.setUint16(16, queues, true);
  view.setUint16(18, queueSize, true);
  return payload.slice(0, bytes);
}

/** Asks for inflight memory; answers the answer's payload and the file. */
async function ask(front: FrontEnd<FrontEndGuest>): Promise<{ payload: Uint8Array<ArrayBuffer>; fd: Fd }> {
  const { queues, options: { queueSize } } = front.guest;
  front.send("VHOST_USER_GET_INFLIGHT_FD", inflightPayload({ queues: queues.length, queueSize }));
  const bytes = new Uint8Array(HEADER_BYTES + INFLIGHT_BYTES);
  const fds: Fd[] = [];
  for (let at = 0; at < bytes.length;) {
    const got = await front.socket.receive(bytes.subarray(at));
    if (got.bytes === 0) throw new Error("the back-end closed the connection");
    fds.push(...got.fds);
    at += got.bytes;
  }
  const [fd, ...more] = fds;
  if (!fd || more.length > 0) throw new Error(`${fds.length} descriptors came with the inflight memory`);
  return { payload: bytes.slice(HEADER_BYTES), fd };
}

/** Has a front-end, which has not started yet, keep inflight memory from its first back-end on. */
export function keepInflight(front: FrontEnd<FrontEndGuest>): Disposable {
  const negotiate = front.negotiate.bind(front);
  let kept: Awaited<ReturnType<typeof ask>> | undefined;
  front.negotiate = async () => {
    await negotiate();
    front.send("VHOST_USER_SET_PROTOCOL_FEATURES", u64(WITH_INFLIGHT));
    kept ??= await ask(front);
    const code = await front.acknowledged("VHOST_USER_SET_INFLIGHT_FD", kept.payload, [kept.fd.number]);
    if (code !== 0n) throw new Error("the back-end refused the inflight memory");
  };
  return { [Symbol.dispose]: () => kept?.fd.close() };
}
