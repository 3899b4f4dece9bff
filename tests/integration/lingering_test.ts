/**
 * hostile.md 21 for the control thread: a descriptor whose close(2) waits, here a TCP connection that lingers for a minute
 * over data that its peer does not read, holds up nobody, wherever its sender has put it.
 */
import { assert } from "@std/assert";
import { REQUESTS } from "../../shared/vhost_user/protocol.ts";
import { Bystanders } from "../support/bystanders.ts";
import { openDescriptors, untilNoMoreDescriptors } from "../support/descriptors.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd } from "../support/front_end.ts";
import { must } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { TestProcess } from "../support/process.ts";
import { until } from "../support/wait.ts";

const LINGER_SECONDS = 60;

/**
 * Sends the connection as a call descriptor and closes its own copy before the message is whole, so that the last one is
 * the service's. "inside": it lies in the queue of the Unix socket that is sent. "left": in a message nobody will read.
 */
const ATTACK = `
import socket, struct, sys, time
listener = socket.create_server(("127.0.0.1", 0))
sender = socket.create_connection(listener.getsockname())
peer, _ = listener.accept()
sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, ${LINGER_SECONDS}))
sender.setblocking(False)
try:
    while True: sender.send(bytes(65536))
except BlockingIOError:
    pass
where, path = sys.argv[1:]
front = socket.socket(socket.AF_UNIX)
front.connect(path)
header = struct.pack("<III", ${REQUESTS.VHOST_USER_SET_VRING_CALL.number}, 1, 8)
sent = sender
if where == "inside":
    mine, sent = socket.socketpair()
    socket.send_fds(mine, [b"x"], [sender.fileno()])
    sender.close()
if where == "left":
    front.sendall(struct.pack("<III", 9999, 1, 0))
socket.send_fds(front, [header], [sent.fileno()])
sent.close()
try:
    front.sendall(struct.pack("<Q", 0))
    print("refused" if front.recv(1) == b"" else "answered", flush=True)
except (BrokenPipeError, ConnectionResetError):
    print("refused", flush=True)
time.sleep(3600)
`;

for (const where of ["alone", "inside", "left"]) {
  judgedTest(["python"], `a descriptor that would linger, ${where}, holds up nobody`, async () => {
    await using fabric = await TestFabric.start(3);
    await using bystanders = await Bystanders.attach(fabric);
    const { nic = 0, vhost = 0 } = fabric.pids();
    // The switch connects to the PF's pool when the services are up: what it opens for that is no leak.
    await until("the switch to drive the PF's pool", async () => {
      const { pf } = await must(`${fabric.url("nic")}/api/v1/state`);
      return pf.queues.length === 2 && pf.queues.every(({ state }: { state: string }) => state === "running");
    });
    const before = openDescriptors(nic, vhost);
    const { socket } = fabric.vf(2);
    await using evil = new TestProcess("attacker", "/usr/bin/python3", ["-c", ATTACK, where, socket]);
    await evil.expect(/refused/);
    await bystanders.check();
    await until("the VF to be served again", async () => {
      const front = FrontEnd.connect(socket);
      try {
        return (await front.ask("VHOST_USER_GET_FEATURES")) > 0n;
      } catch {
        return false;
      } finally {
        await front[Symbol.asyncDispose]();
      }
    });
    await bystanders.check();
    assert((await fabric.get("/api/v1/vfs/2")).lastDetach);
    await untilNoMoreDescriptors(before);
  });
}
